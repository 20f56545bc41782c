//! A Chromium under test: opens pages, clicks, types, and waits until the page shows the expected state.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use passbook_testkit::folder::temporary_root;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::driver::Driver;

/// A wait fails after this time. It is far longer than any expected delay, so that slow machines do not fail tests.
const WAIT_S_MAX: u64 = 60;
const POLL_MS: u64 = 30;
/// Time for the page to render after a size change, before a screenshot.
const RENDER_MS: u64 = 300;
/// Tests that run at once. More browsers than cores only slow each other down.
const BROWSERS_MAX: usize = 2;

/// The language of the browser, unless a test chooses another.
const LANGUAGE: &str = "en-GB";

static SLOTS: Semaphore = Semaphore::const_new(BROWSERS_MAX);

/// axe-core, which finds accessibility violations, in a pinned version from npm.
static AXE: LazyLock<String> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe-core-4.14.1");
    let file = folder.join("node_modules/axe-core/axe.min.js");
    if !file.exists() {
        fs::create_dir_all(&folder).unwrap();
        let install = ["install", "--no-audit", "--no-fund", "--no-save", "--loglevel=error", "axe-core@4.14.1"];
        let installed = Command::new("npm").args(install).current_dir(&folder).output().expect("this test needs npm");
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    }
    fs::read_to_string(file).unwrap()
});

/// A browser with its own profile.
pub struct Browser {
    driver: Driver,
    base: String,
    profile: TempDir,
    _slot: Option<SemaphorePermit<'static>>,
}

impl Browser {
    /// Starts a browser for the service at the URL `base`.
    pub async fn start(base: &str) -> Self {
        Self::launch(base, LANGUAGE, Some(SLOTS.acquire().await.unwrap())).await
    }

    /// Starts a browser in a language such as `de-DE`.
    pub async fn start_in(base: &str, language: &str) -> Self {
        let browser = Self::launch(base, language, Some(SLOTS.acquire().await.unwrap())).await;
        // On Linux the option `--lang` does not set the locale of scripts.
        browser.dev_tools("Emulation.setLocaleOverride", json!({"locale": language.replace('-', "_")})).await;
        browser
    }

    /// Starts another browser for the same service. It does not count towards `BROWSERS_MAX`.
    pub async fn open_another(&self) -> Self {
        Self::launch(&self.base, LANGUAGE, None).await
    }

    async fn launch(base: &str, language: &str, slot: Option<SemaphorePermit<'static>>) -> Self {
        let profile = tempfile::Builder::new().prefix("passbook-browser.").tempdir_in(temporary_root()).unwrap();
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            format!("--lang={language}"),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        if geteuid().is_root() {
            arguments.push("--no-sandbox".to_owned());
        }
        let downloads = profile.path().join("downloads");
        let preferences = json!({"download.default_directory": downloads, "intl.accept_languages": language});
        let driver = Driver::start(json!({"args": arguments, "prefs": preferences}), profile.path()).await;
        let browser = Self { driver, base: base.to_owned(), profile, _slot: slot };
        browser.set_viewport(1360, 900).await;
        browser
    }

    /// Opens a page of the console by its address after `#/`.
    pub async fn open(&self, page: &str) {
        self.go(&format!("{}/#/{page}", self.base)).await;
        self.wait_until("the page", "!!document.querySelector('h1')").await;
    }

    /// Opens any path of the service.
    pub async fn visit(&self, path: &str) {
        self.go(&format!("{}{path}", self.base)).await;
    }

    async fn go(&self, url: &str) {
        self.driver.post("url", &json!({"url": url})).await.unwrap();
    }

    /// Reloads the page.
    pub async fn reload(&self) {
        self.driver.post("refresh", &json!({})).await.unwrap();
    }

    /// Runs a script in the page as the body of a function and returns its result.
    pub async fn run_script(&self, script: &str) -> Value {
        self.driver.execute(script).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Evaluates an expression in the page.
    pub async fn evaluate(&self, expression: &str) -> Value {
        self.run_script(&format!("return {expression}")).await
    }

    /// Waits until an expression is true in the page. `what` names the state in the failure message.
    pub async fn wait_until(&self, what: &str, expression: &str) {
        let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
        // While the page is loading, the expression may throw.
        let script = format!("try {{ return !!({expression}) }} catch {{ return false }}");
        while self.driver.execute(&script).await.ok() != Some(Value::Bool(true)) {
            if Instant::now() > deadline {
                self.screenshot("failed").await;
                let text = self.evaluate("document.body.innerText").await;
                panic!("timed out waiting for {what}; the page shows: {}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }

    /// Waits until the page shows a text.
    pub async fn wait_for_text(&self, text: &str) {
        self.wait_until(text, &format!("document.body.innerText.replace(/\\u00a0/g, ' ').includes({})", json!(text)))
            .await;
    }

    /// Waits until an element that matches a selector shows a text.
    pub async fn wait_for_text_in(&self, selector: &str, text: &str) {
        let found = format!(
            "[...document.querySelectorAll({})].some((e) => e.innerText.includes({}))",
            json!(selector),
            json!(text)
        );
        self.wait_until(&format!("{text:?} in {selector}"), &found).await;
    }

    /// Whether the page shows a text at this moment.
    pub async fn shows_text(&self, text: &str) -> bool {
        self.evaluate(&format!("document.body.innerText.includes({})", json!(text))).await == Value::Bool(true)
    }

    /// Clicks an element as a user does: the click fails if the element is hidden or covered.
    pub async fn click(&self, selector: &str) {
        self.wait_until(selector, &format!("document.querySelector({})", json!(selector))).await;
        self.driver
            .element(selector, "click", &json!({}))
            .await
            .unwrap_or_else(|error| panic!("{selector} cannot be clicked: {error}"));
    }

    /// Clicks the first button, summary or link whose text starts with `text`.
    pub async fn click_text(&self, text: &str) {
        let path =
            format!("//*[(self::button or self::summary or self::a) and starts-with(normalize-space(), '{text}')]");
        let found = format!("document.evaluate({}, document, null, 9).singleNodeValue", json!(path));
        self.wait_until(text, &found).await;
        self.driver
            .element(&path, "click", &json!({}))
            .await
            .unwrap_or_else(|error| panic!("{text} cannot be clicked: {error}"));
    }

    /// Replaces the content of a field.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.wait_until(selector, &format!("document.querySelector({})", json!(selector))).await;
        for (command, body) in [("clear", json!({})), ("value", json!({"text": text}))] {
            let done = self.driver.element(selector, command, &body).await;
            done.unwrap_or_else(|error| panic!("{selector} cannot be filled: {error}"));
        }
    }

    /// Opens the section of an action on the account page, such as `Withdraw`.
    pub async fn open_action(&self, form: &str) {
        let is_open = format!(
            "[...document.querySelectorAll('.actions details[open] > summary')].some((s) => s.innerText === {})",
            json!(form)
        );
        if self.evaluate(&is_open).await != Value::Bool(true) {
            self.click_text(form).await;
            self.wait_until(form, &is_open).await;
        }
    }

    /// Runs `act` in the window that the page has opened, and returns to the page.
    pub async fn in_other_window<F: Future<Output = ()>>(&self, act: impl FnOnce() -> F) {
        let own = self.driver.get("window").await;
        let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
        let other = loop {
            let windows = self.driver.get("window/handles").await;
            let other = windows.as_array().unwrap().iter().find(|window| **window != own).cloned();
            match other {
                Some(other) => break other,
                None => assert!(Instant::now() < deadline, "timed out waiting for another window"),
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        };
        self.driver.post("window", &json!({"handle": other})).await.unwrap();
        act().await;
        self.driver.post("window", &json!({"handle": own})).await.unwrap();
    }

    /// Presses keys one after the other in the focused element.
    pub async fn press_keys(&self, keys: &str) {
        let pressed = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})));
        let actions = json!([{"type": "key", "id": "keyboard", "actions": pressed.collect::<Vec<_>>()}]);
        self.driver.post("actions", &json!({"actions": actions})).await.unwrap();
    }

    /// Sets the size of the viewport in pixels.
    pub async fn set_viewport(&self, width: u32, height: u32) {
        let parameters = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.dev_tools("Emulation.setDeviceMetricsOverride", parameters).await;
    }

    /// Sets the preferred colour scheme: `light` or `dark`.
    pub async fn set_color_scheme(&self, scheme: &str) {
        let parameters = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.dev_tools("Emulation.setEmulatedMedia", parameters).await;
        let query = format!("matchMedia('(prefers-color-scheme: {scheme})').matches");
        self.wait_until(scheme, &query).await;
    }

    /// Writes a screenshot of the full page at the current width to `target/screenshots/`.
    pub async fn screenshot(&self, name: &str) {
        let folder = screenshots();
        fs::create_dir_all(&folder).unwrap();
        let whole =
            self.evaluate("[innerWidth, innerHeight, Math.min(document.documentElement.scrollHeight, 8000)]").await;
        let [width, height, full] = [0, 1, 2].map(|n| u32::try_from(whole[n].as_u64().unwrap()).unwrap());
        self.set_viewport(width, full.max(height)).await;
        // Charts are resized and rendered with the next frame.
        tokio::time::sleep(Duration::from_millis(RENDER_MS)).await;
        fs::write(folder.join(format!("{name}.png")), self.driver.screenshot().await).unwrap();
        self.set_viewport(width, height).await;
    }

    /// The accessibility violations that axe-core finds in the page.
    pub async fn accessibility_violations(&self) -> Vec<String> {
        self.run_script(&AXE).await;
        let find = "axe.run(document, {resultTypes: ['violations'], rules: {'target-size': {enabled: true}}}).then(({violations}) =>
             violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html + ' ' + n.failureSummary).join(' | ')}`))";
        serde_json::from_value(self.evaluate(find).await).unwrap()
    }

    /// Waits for a downloaded file with this extension and returns its content.
    pub async fn download(&self, extension: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
        loop {
            let files = fs::read_dir(self.profile.path().join("downloads")).into_iter().flatten().flatten();
            if let Some(file) =
                files.map(|file| file.path()).find(|path| path.extension().is_some_and(|e| e == extension))
            {
                return fs::read_to_string(file).unwrap();
            }
            assert!(Instant::now() < deadline, "timed out waiting for a .{extension} download");
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }

    async fn dev_tools(&self, method: &str, parameters: Value) {
        self.driver.dev_tools(method, parameters).await.unwrap();
    }
}

pub fn screenshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots")
}

impl Drop for Browser {
    /// Kills every process with this profile, so that a failed test leaves no Chromium behind. Chromedriver stops in its own drop.
    fn drop(&mut self) {
        let profile = self.profile.path().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let id = entry.file_name().to_string_lossy().parse::<i32>();
            if let (true, Ok(id)) = (command.contains(&profile), id) {
                let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
            }
        }
    }
}
