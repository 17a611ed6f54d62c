//! A client of `WebDriver` (W3C recommendation) of the few commands a test needs, over plain HTTP.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// A headless browser with one window. It ends with this value.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Its profile, removed at the end.
    _profile: tempfile::TempDir,
}

fn program(names: &[&str]) -> PathBuf {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let found = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("none of {names:?} is installed: on Debian, `apt install chromium chromium-driver`"))
}

impl Browser {
    /// Starts a browser of this window size.
    pub(crate) fn start(width: u32, height: u32) -> Self {
        let browser = program(&["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]);
        let driver = program(&["chromedriver"]);
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let log = File::create(profile.path().join("driver.log")).expect("the driver's log");
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("chromedriver starts");
        let stdout = BufReader::new(driver.stdout.take().expect("a pipe"));
        let port = stdout
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                port.trim_end_matches('.').trim().parse().ok()
            })
            .expect("chromedriver names its port");
        let mut browser_of = Self { driver, port, session: String::new(), _profile: profile };
        let arguments = [
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--no-first-run".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", browser_of._profile.path().display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": browser, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser_of.call("POST", "/session", &wanted);
        browser_of.session = session["sessionId"].as_str().expect("a session id").to_owned();
        browser_of
    }

    /// Opens a file.
    pub(crate) fn open(&self, path: &Path) {
        self.post("url", &json!({ "url": format!("file://{}", path.display()) }));
    }

    /// The value of a JavaScript expression.
    pub(crate) fn eval(&self, expression: &str) -> Value {
        self.post("execute/sync", &json!({ "script": format!("return {expression};"), "args": [] }))
    }

    /// How many elements a CSS selector finds.
    pub(crate) fn count(&self, selector: &str) -> u64 {
        self.eval(&format!("document.querySelectorAll({}).length", json!(selector))).as_u64().expect("a count")
    }

    /// The text of the element a CSS selector finds first, as shown.
    pub(crate) fn text(&self, selector: &str) -> String {
        self.eval(&format!("document.querySelector({}).innerText", json!(selector))).as_str().expect("text").to_owned()
    }

    /// Moves the pointer to the middle of an element, as a user would, and presses the button if asked.
    pub(crate) fn point(&self, selector: &str, press: bool) {
        let found = self.post("element", &json!({ "using": "css selector", "value": selector }));
        self.eval(&format!("document.querySelector({}).scrollIntoView({{ block: 'center' }})", json!(selector)));
        let mut actions = vec![json!({ "type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": found })];
        if press {
            actions.push(json!({ "type": "pointerDown", "button": 0 }));
            actions.push(json!({ "type": "pointerUp", "button": 0 }));
        }
        self.post(
            "actions",
            &json!({ "actions": [{
            "type": "pointer", "id": "mouse", "parameters": { "pointerType": "mouse" }, "actions": actions,
        }] }),
        );
    }

    /// Types a key, by its character or its code in `WebDriver`, at the element that has the focus.
    pub(crate) fn key(&self, key: char) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.post("actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }));
    }

    /// A PNG of the window, in base 64.
    pub(crate) fn screenshot(&self) -> String {
        self.call("GET", &format!("/session/{}/screenshot", self.session), &Value::Null)
            .as_str()
            .expect("base 64")
            .to_owned()
    }

    /// What the page wrote to the console since the last call, errors of the browser included.
    pub(crate) fn console(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({ "type": "browser" }));
        entries.as_array().expect("entries").iter().map(|entry| entry["message"].to_string()).collect()
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}/{command}", self.session), body)
    }

    /// One request, one connection.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("chromedriver listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).expect("the request is sent");
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        for line in reader.by_ref().lines().map(|line| line.expect("a header")).take_while(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer).expect("the answer");
        let mut answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{method} {path}: {}", answer["value"]);
        answer["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // During a failing test the driver may be gone already; ending it ends the browser.
        if !std::thread::panicking() && !self.session.is_empty() {
            self.call("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
