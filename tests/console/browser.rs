//! Chromium as a person uses it: pages are opened, labels are read, keys are pressed, and everything is waited for.

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
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::driver::Driver;

/// After so long a thing that must come is taken for lost. No test passes or fails by being fast or slow.
const PATIENCE_S_MAX: u64 = 60;
const LOOK_AGAIN_MS: u64 = 30;
/// What a page may need to be drawn anew before its picture is taken.
const DRAWING_MS: u64 = 300;
/// More of them than cores only wait for each other.
const BROWSERS_MAX: usize = 2;

static PLACES: Semaphore = Semaphore::const_new(BROWSERS_MAX);

/// axe-core, which finds what a screen reader would stumble over: from npm, at the version that is named here.
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

/// A browser with a profile of its own.
pub struct Browser {
    driver: Driver,
    base: String,
    profile: TempDir,
    _place: Option<SemaphorePermit<'static>>,
}

impl Browser {
    /// At the bank that serves at `base`.
    pub async fn at(base: &str) -> Self {
        Self::start(base, Some(PLACES.acquire().await.unwrap())).await
    }

    /// One more beside the first, in the same place.
    pub async fn beside(&self) -> Self {
        Self::start(&self.base, None).await
    }

    async fn start(base: &str, place: Option<SemaphorePermit<'static>>) -> Self {
        let profile = tempfile::Builder::new().prefix("passbook-browser.").tempdir().unwrap();
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--lang=en-GB".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        if geteuid().is_root() {
            arguments.push("--no-sandbox".to_owned());
        }
        let downloads = profile.path().join("downloads");
        let preferences = json!({"download.default_directory": downloads, "intl.accept_languages": "en-GB"});
        let driver = Driver::start(json!({"args": arguments, "prefs": preferences})).await;
        let browser = Self { driver, base: base.to_owned(), profile, _place: place };
        browser.size(1360, 900).await;
        browser
    }

    /// Opens a page of the console: what stands behind the `#`.
    pub async fn open(&self, page: &str) {
        self.go(&format!("{}/#/{page}", self.base)).await;
        self.until("the page", "!!document.querySelector('h1')").await;
    }

    /// Opens anything.
    pub async fn visit(&self, path: &str) {
        self.go(&format!("{}{path}", self.base)).await;
    }

    async fn go(&self, url: &str) {
        self.driver.post("url", &json!({"url": url})).await.unwrap();
    }

    /// Loads the page again.
    pub async fn load_again(&self) {
        self.driver.post("refresh", &json!({})).await.unwrap();
    }

    /// Runs a function's body in the page.
    pub async fn run(&self, script: &str) -> Value {
        self.driver.execute(script).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// What an expression is in the page.
    pub async fn ask(&self, expression: &str) -> Value {
        self.run(&format!("return {expression}")).await
    }

    /// Waits until an expression holds.
    pub async fn until(&self, what: &str, expression: &str) {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_S_MAX);
        // A page that is being loaded has nothing to ask yet.
        let script = format!("try {{ return !!({expression}) }} catch {{ return false }}");
        while self.driver.execute(&script).await.ok() != Some(Value::Bool(true)) {
            if Instant::now() > deadline {
                self.picture("failed").await;
                let seen = self.ask("document.body.innerText").await;
                panic!("{what} never came; the page shows: {}", seen.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
        }
    }

    /// Waits until the page shows a text somewhere.
    pub async fn sees(&self, text: &str) {
        self.until(text, &format!("document.body.innerText.replace(/\\u00a0/g, ' ').includes({})", json!(text))).await;
    }

    /// Waits until the part of the page under a selector shows a text.
    pub async fn sees_in(&self, selector: &str, text: &str) {
        let found = format!(
            "[...document.querySelectorAll({})].some((e) => e.innerText.includes({}))",
            json!(selector),
            json!(text)
        );
        self.until(&format!("{text:?} in {selector}"), &found).await;
    }

    /// Whether the page shows a text now.
    pub async fn shows(&self, text: &str) -> bool {
        self.ask(&format!("document.body.innerText.includes({})", json!(text))).await == Value::Bool(true)
    }

    /// Clicks, as a person would: what is hidden or covered cannot be clicked.
    pub async fn click(&self, selector: &str) {
        self.until(selector, &format!("document.querySelector({})", json!(selector))).await;
        self.driver
            .element(selector, "click", &json!({}))
            .await
            .unwrap_or_else(|error| panic!("{selector} cannot be clicked: {error}"));
    }

    /// Clicks the button or summary with this text, or with this beginning.
    pub async fn press(&self, text: &str) {
        let path =
            format!("//*[(self::button or self::summary or self::a) and starts-with(normalize-space(), '{text}')]");
        let found = format!("document.evaluate({}, document, null, 9).singleNodeValue", json!(path));
        self.until(text, &found).await;
        self.driver
            .element(&path, "click", &json!({}))
            .await
            .unwrap_or_else(|error| panic!("{text} cannot be clicked: {error}"));
    }

    /// Writes into a field in place of what stands there.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.until(selector, &format!("document.querySelector({})", json!(selector))).await;
        for (command, body) in [("clear", json!({})), ("value", json!({"text": text}))] {
            let done = self.driver.element(selector, command, &body).await;
            done.unwrap_or_else(|error| panic!("{selector} cannot be filled: {error}"));
        }
    }

    /// Opens one of the forms at the counter.
    pub async fn counter(&self, form: &str) {
        let is_open = format!(
            "[...document.querySelectorAll('.actions details[open] > summary')].some((s) => s.innerText === {})",
            json!(form)
        );
        if self.ask(&is_open).await != Value::Bool(true) {
            self.press(form).await;
            self.until(form, &is_open).await;
        }
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub async fn keys(&self, keys: &str) {
        let pressed = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})));
        let actions = json!([{"type": "key", "id": "keyboard", "actions": pressed.collect::<Vec<_>>()}]);
        self.driver.post("actions", &json!({"actions": actions})).await.unwrap();
    }

    /// A viewport of so many pixels.
    pub async fn size(&self, width: u32, height: u32) {
        let parameters = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.dev_tools("Emulation.setDeviceMetricsOverride", parameters).await;
    }

    /// What the reader's system prefers: `light` or `dark`.
    pub async fn scheme(&self, scheme: &str) {
        let parameters = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.dev_tools("Emulation.setEmulatedMedia", parameters).await;
        let query = format!("matchMedia('(prefers-color-scheme: {scheme})').matches");
        self.until(scheme, &query).await;
    }

    /// Keeps the whole page, at this width, as a picture in `target/screenshots/`.
    pub async fn picture(&self, name: &str) {
        let folder = screenshots();
        fs::create_dir_all(&folder).unwrap();
        let whole = self.ask("[innerWidth, innerHeight, Math.min(document.documentElement.scrollHeight, 8000)]").await;
        let [width, height, full] = [0, 1, 2].map(|n| u32::try_from(whole[n].as_u64().unwrap()).unwrap());
        self.size(width, full.max(height)).await;
        // Charts follow the size, and are drawn with the next frame.
        tokio::time::sleep(Duration::from_millis(DRAWING_MS)).await;
        fs::write(folder.join(format!("{name}.png")), self.driver.screenshot().await).unwrap();
        self.size(width, height).await;
    }

    /// What axe-core finds fault with; nothing, if everybody can use the page.
    pub async fn faults(&self) -> Vec<String> {
        self.run(&AXE).await;
        let find = "axe.run(document, {resultTypes: ['violations']}).then(({violations}) =>
             violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html + ' ' + n.failureSummary).join(' | ')}`))";
        serde_json::from_value(self.ask(find).await).unwrap()
    }

    /// A file that the page has handed over, once it is there.
    pub async fn download(&self, ending: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_S_MAX);
        loop {
            let files = fs::read_dir(self.profile.path().join("downloads")).into_iter().flatten().flatten();
            if let Some(file) = files.map(|file| file.path()).find(|path| path.extension().is_some_and(|e| e == ending))
            {
                return fs::read_to_string(file).unwrap();
            }
            assert!(Instant::now() < deadline, "no {ending} was downloaded");
            tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
        }
    }

    async fn dev_tools(&self, method: &str, parameters: Value) {
        self.driver.dev_tools(method, parameters).await.unwrap();
    }
}

/// Where pictures are kept.
pub fn screenshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots")
}

impl Drop for Browser {
    /// Whatever works on our profile: a test that has failed leaves no Chromium behind. The driver ends with its own part.
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
