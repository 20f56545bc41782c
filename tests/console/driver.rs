//! A minimal client for the WebDriver protocol (W3C): JSON requests to chromedriver.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// The timeout of one WebDriver command.
const COMMAND_S_MAX: u64 = 120;
/// The timeout of a script in the page.
const SCRIPT_MS_MAX: u64 = 110_000;
/// How often chromedriver is started. It exits if the port that it chose on IPv4 is taken on IPv6.
const STARTS_MAX: usize = 5;
/// The JSON member that holds an element's ID (WebDriver, section 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A chromedriver process with one session.
pub struct Driver {
    child: Child,
    http: reqwest::Client,
    session: String,
}

impl Driver {
    /// Starts chromedriver and a browser with these Chromium options. Both put their temporary files into this folder.
    pub async fn start(options: Value, temporary: &Path) -> Self {
        let mut command = Command::new("chromedriver");
        // A time zone that always differs from UTC, so that tests notice times shown in the wrong zone.
        command.arg("--port=0").env("TZ", "Europe/Berlin").env("TMPDIR", temporary);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let (child, port) = (0..STARTS_MAX).find_map(|_| start_process(&mut command)).expect("chromedriver starts");
        let base = format!("http://127.0.0.1:{port}");
        let http = passbook_testkit::http_client().timeout(Duration::from_secs(COMMAND_S_MAX)).build().unwrap();
        let mut driver = Self { child, http, session: base };
        let capabilities = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options, "timeouts": {"script": SCRIPT_MS_MAX}}}});
        let made = driver.post("session", &capabilities).await.unwrap();
        driver.session = format!("{}/session/{}", driver.session, made["sessionId"].as_str().unwrap());
        driver
    }

    /// Sends a WebDriver command. An error contains the driver's message.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}/{path}", self.session);
        let answer = self.http.post(url).json(body).send().await.map_err(|error| error.to_string())?;
        let mut answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"].as_str().unwrap_or_default())),
            None => Ok(answer["value"].take()),
        }
    }

    /// Reads a state of the session.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}/{path}", self.session)).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["value"].take()
    }

    /// Sends a command to the first element that matches a CSS selector or, if it starts with `//`, an XPath.
    pub async fn element(&self, selector: &str, command: &str, body: &Value) -> Result<(), String> {
        let using = if selector.starts_with("//") { "xpath" } else { "css selector" };
        let found = self.post("element", &json!({"using": using, "value": selector})).await?;
        let id = found[ELEMENT].as_str().ok_or("no element")?;
        self.post(&format!("element/{id}/{command}"), body).await.map(drop)
    }

    /// Runs a script in the page as the body of a function.
    pub async fn execute(&self, script: &str) -> Result<Value, String> {
        self.post("execute/sync", &json!({"script": script, "args": []})).await
    }

    /// A screenshot of the viewport as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        STANDARD.decode(self.get("screenshot").await.as_str().unwrap()).unwrap()
    }

    /// Sends a command of the Chrome DevTools Protocol.
    pub async fn dev_tools(&self, method: &str, parameters: Value) -> Result<Value, String> {
        self.post("goog/cdp/execute", &json!({"cmd": method, "params": parameters})).await
    }
}

/// Starts chromedriver and returns it with the port that it chose and printed in one of its first lines. If it exits before
/// that, its output is shown and the result is `None`.
fn start_process(command: &mut Command) -> Option<(Child, u16)> {
    let mut child =
        command.spawn().expect("this test needs Chromium and its driver: `scripts/install-deps --test` installs them");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let started = lines.by_ref().inspect(|line| println!("chromedriver: {line}")).find_map(|line| port(&line));
    let Some(port) = started else {
        child.wait().unwrap();
        return None;
    };
    // Read the rest of the output: if the pipe closed, chromedriver would stop.
    thread::spawn(move || lines.for_each(drop));
    Some((child, port))
}

/// The port in the line `ChromeDriver was started successfully on port 40123.`
fn port(line: &str) -> Option<u16> {
    line.rsplit_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
