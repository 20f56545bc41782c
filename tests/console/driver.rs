//! The WebDriver protocol (W3C), as much of it as is needed here: requests in JSON to Chromium's own driver.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// A page may be slow to answer, and never this slow.
const COMMAND_S_MAX: u64 = 120;
/// Nor a script in it.
const SCRIPT_MS_MAX: u64 = 110_000;
/// The member that an element is known by.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A driver with one session.
pub struct Driver {
    child: Child,
    http: reqwest::Client,
    session: String,
}

impl Driver {
    /// A browser with these options of Chromium.
    pub async fn start(options: Value) -> Self {
        let mut command = Command::new("chromedriver");
        // Somewhere where it is never the time that UTC has.
        command.arg("--port=0").env("TZ", "Europe/Berlin").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child =
            command.spawn().expect("this test needs Chromium and its driver: `scripts/setup --test` installs them");
        let base = format!("http://127.0.0.1:{}", port(&mut child));
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(COMMAND_S_MAX)).build().unwrap();
        let mut driver = Self { child, http, session: base };
        let capabilities = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options, "timeouts": {"script": SCRIPT_MS_MAX}}}});
        let made = driver.post("session", &capabilities).await.unwrap();
        driver.session = format!("{}/session/{}", driver.session, made["sessionId"].as_str().unwrap());
        driver
    }

    /// A command of the protocol; what went wrong, in the driver's words.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}/{path}", self.session);
        let answer = self.http.post(url).json(body).send().await.map_err(|error| error.to_string())?;
        let mut answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"].as_str().unwrap_or_default())),
            None => Ok(answer["value"].take()),
        }
    }

    /// A command to an element: the first that is found, by a CSS selector or, where it begins so, by an XPath.
    pub async fn element(&self, place: &str, command: &str, body: &Value) -> Result<(), String> {
        let using = if place.starts_with("//") { "xpath" } else { "css selector" };
        let found = self.post("element", &json!({"using": using, "value": place})).await?;
        let id = found[ELEMENT].as_str().ok_or("no element")?;
        self.post(&format!("element/{id}/{command}"), body).await.map(drop)
    }

    /// The body of a function, carried out in the page.
    pub async fn execute(&self, script: &str) -> Result<Value, String> {
        self.post("execute/sync", &json!({"script": script, "args": []})).await
    }

    /// What the page looks like now, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let answer = self.http.get(format!("{}/screenshot", self.session)).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        STANDARD.decode(answer["value"].as_str().unwrap()).unwrap()
    }

    /// A command of the DevTools protocol.
    pub async fn dev_tools(&self, method: &str, parameters: Value) -> Result<Value, String> {
        self.post("goog/cdp/execute", &json!({"cmd": method, "params": parameters})).await
    }
}

/// The port that the driver has chosen, which it says in one of its first lines.
fn port(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("started successfully on port")).expect("the driver starts");
    // Whoever stops reading ends whoever writes.
    thread::spawn(move || lines.for_each(drop));
    let digits: String = line.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
