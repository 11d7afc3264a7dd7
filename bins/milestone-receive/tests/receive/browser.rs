//! The page in a real browser: Chromium without a window, spoken to over its debugging pipe.
//!
//! Where there is no Chromium these tests say so and pass, unless `MILEPOST_NEEDS_CHROMIUM` is set, as
//! `scripts/test` does after it has installed one.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Folder, Receiver};

/// A browser with one tab.
struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    last_id: u64,
    session: Option<String>,
    /// What the page's scripts threw, and what its policy forbade.
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    fn start() -> Option<Browser> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let paths: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
        let Some(program) =
            names.iter().find_map(|name| paths.iter().map(|it| it.join(name)).find(|it| it.exists()))
        else {
            assert!(env::var_os("MILEPOST_NEEDS_CHROMIUM").is_none(), "there is no Chromium");
            #[expect(clippy::print_stderr, reason = "a test that did not test says so")]
            {
                eprintln!("there is no Chromium: not tested");
            }
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // It reads commands from descriptor 3 and writes answers to 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1", "sh"])
            .arg(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser =
            Browser { child, to, from, last_id: 0, session: None, complaints: Vec::new(), _profile: profile };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Sends a command and waits for its result.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = session.clone().into();
        }
        self.to.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let message = self.next();
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    fn next(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser ended");
        let message: Value = serde_json::from_slice(&bytes).unwrap();
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(message["params"].to_string()),
            Some("Log.entryAdded") if message["params"]["entry"]["level"] == "error" => {
                self.complaints.push(message["params"]["entry"]["text"].to_string());
            }
            _ => {}
        }
        message
    }

    fn open(&mut self, receiver: &Receiver, path: &str) {
        self.ask("Page.navigate", json!({ "url": format!("http://{}{path}", receiver.address) }));
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// A window of this width, in this theme.
    fn look(&mut self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", media);
    }

    /// What an expression gives in the page.
    fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits in the page until an expression holds.
    fn until(&mut self, expression: &str) {
        let waiting = format!(
            "new Promise((done) => {{ const look = () => ({expression}) ? done(true) : setTimeout(look, 20); look(); }})"
        );
        // A navigation ends what waits in the page before it: then it is asked again.
        loop {
            let params = json!({ "expression": waiting, "awaitPromise": true, "returnByValue": true, "timeout": 60_000 });
            self.last_id += 1;
            let id = self.last_id;
            let command = json!({ "id": id, "method": "Runtime.evaluate", "params": params, "sessionId": self.session });
            self.to.write_all(format!("{command}\0").as_bytes()).unwrap();
            let answer = loop {
                let message = self.next();
                if message["id"] == id {
                    break message;
                }
            };
            if answer["result"]["result"]["value"] == true {
                return;
            }
            assert!(answer.get("error").is_some(), "{expression}: {answer}");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const HOSTILE: [&str; 5] = [
    "<script>window.harmed = 1</script>",
    "\"><img src=x onerror=\"window.harmed = 1\">",
    "'-window.harmed-' </title></textarea></script><svg onload=window.harmed=1>",
    "\u{202e}turned \u{2067}around\u{7}\u{1b}[31m",
    "javascript:window.harmed=1",
];

fn emit_hostile(receiver: &Receiver, id: &str, text: &str) {
    let changes = json!({
        "claim": text, "scope": text, "nextAction": text, "timestampUtc": milepost::clock::now(),
        "evidence": [
            { "type": "pr", "path": text, "summary": text, "ref": text },
            { "type": "doc", "path": format!("https://a.example/{text}"), "summary": text },
            { "type": "commit", "path": "https://a.example/?a=1&b=%3C", "summary": "s", "ref": "0123456789abcdef0123" },
            { "type": "log", "path": "p", "summary": "folded away", "ref": format!("sha256:{}", "ab".repeat(32)) },
        ],
    });
    let answer = receiver.emit(id, &changes);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn what_comes_live_is_what_the_server_would_have_written_and_nothing_hostile_runs() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = Folder::new();
    let receiver = folder.start();
    browser.open(&receiver, "/");
    browser.until("document.getElementById('state').textContent === 'Live'");
    for (at, text) in HOSTILE.iter().enumerate() {
        emit_hostile(&receiver, &format!("m{at}{text}").replace(char::is_control, ""), text);
    }
    browser.until("document.querySelectorAll('li[data-seq]').length === 5");
    assert_eq!(browser.value("document.getElementById('empty')"), Value::Null);
    // The same elements, but for what tells that they are new.
    let items = "JSON.stringify([...document.querySelectorAll('li[data-seq]')].map((it) => { it.classList.remove('new'); \
                 return it.outerHTML.replace(/\\s+/g, ' ').replace(/> </g, '><'); }))";
    let live = browser.value(items);
    browser.open(&receiver, "/?limit=9");
    let written = browser.value(items);
    let list = |it: &Value| serde_json::from_str::<Vec<String>>(it.as_str().unwrap()).unwrap();
    for (live, written) in list(&live).iter().zip(list(&written)) {
        let at = live.bytes().zip(written.bytes()).position(|(a, b)| a != b).unwrap_or(live.len());
        assert!(*live == written, "from byte {at} on: {:?}", live.get(at..));
    }
    for path in [
        "/?limit=9",
        "/?milestone=m0%3Cscript%3Ewindow.harmed%20%3D%201%3C%2Fscript%3E",
        "/?q=%3Cscript%3E&scope=%22%3E%3Cimg%3E",
    ] {
        browser.open(&receiver, path);
        assert_eq!(browser.value("window.harmed === undefined"), true, "{path}");
        let foreign = "document.querySelectorAll('main script, main img, main svg, [onerror], [onload], a[href^=javascript]').length";
        assert_eq!(browser.value(foreign), 0, "{path}");
    }
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

#[test]
fn filters_and_words_live_in_the_address_and_hold_for_what_comes() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = Folder::new();
    let receiver = folder.start();
    receiver.emit("a", &json!({ "scope": "runtime", "claim": "The canary is quiet." }));
    receiver.emit("b", &json!({ "scope": "demand", "claim": "The CANARY sings." }));
    browser.open(&receiver, "/");
    browser.until("document.getElementById('state').textContent === 'Live'");
    browser.value("document.querySelector('[name=q]').value = 'canary'; document.querySelector('[name=scope]').value = 'demand'");
    browser.value("document.querySelector('#find button').click()");
    browser.until("location.search === '?q=canary&scope=demand' && document.readyState === 'complete'");
    let ids = "[...document.querySelectorAll('li[data-seq]')].map((it) => it.dataset.seq).join()";
    assert_eq!(browser.value(ids), "2");
    browser.until("document.getElementById('state').textContent === 'Live'");
    receiver.emit("c", &json!({ "scope": "runtime", "claim": "Another canary." }));
    receiver.emit("d", &json!({ "scope": "demand", "claim": "No bird." }));
    receiver.emit("e", &json!({ "scope": "demand", "claim": "Canaries? One canary." }));
    browser.until("document.getElementById('seq-5') !== null");
    assert_eq!(browser.value(ids), "5,2");
    // One of them alone, with its receipt.
    browser.value("document.querySelector('#seq-5 .proof a').click()");
    browser.until("location.search === '?milestone=e' && document.readyState === 'complete'");
    let receipt = browser.value("document.querySelector('.receipt .hash').textContent");
    assert_eq!(receipt, folder.lines("receive/feed.jsonl")[4]["hash"]);
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

#[test]
fn it_says_when_it_is_not_connected_and_goes_on_by_itself() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = Folder::new();
    let receiver = folder.start();
    browser.open(&receiver, "/");
    browser.until("document.getElementById('state').textContent === 'Live'");
    let address = receiver.address.to_string();
    assert_eq!(receiver.end(), 0);
    browser.until("document.getElementById('state').textContent !== 'Live'");
    let mut command = folder.command(&[]);
    // The same address again.
    let receiver = Receiver::begin(command.args(["--listen", &address]).stderr(Stdio::null()));
    receiver.emit("late", &Value::Null);
    browser.until("document.getElementById('seq-1') !== null");
    browser.until("document.getElementById('state').textContent === 'Live'");
}

#[test]
fn it_fits_a_phone_and_a_wide_screen_in_both_themes_and_everything_has_a_name() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = Folder::new();
    let receiver = folder.start();
    for (at, risk) in ["on-track", "at-risk", "blocked", "completed"].iter().enumerate() {
        let changes =
            json!({ "riskStatus": risk, "claim": "x".repeat(300), "timestampUtc": milepost::clock::now() });
        receiver.emit(&format!("m{at}"), &changes);
    }
    for path in ["/", "/?milestone=m1", "/?scope=nowhere"] {
        for width in [360, 800, 1440] {
            for scheme in ["light", "dark"] {
                browser.look(width, scheme);
                browser.open(&receiver, path);
                let overflow = browser
                    .value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
                assert_eq!(overflow, 0, "{path} at {width}, {scheme}");
                let nameless = "[...document.querySelectorAll('a, button, input:not([type=hidden]), svg[role=img]')].filter((it) => \
                                !(it.textContent.trim() || it.ariaLabel)).length";
                assert_eq!(browser.value(nameless), 0, "{path}");
                // 4.5 to 1, as WCAG 2 wants it of text.
                let faint = "(() => { const parse = (it) => it.match(/[\\d.]+/g).slice(0, 3).map(Number); \
                    const light = (it) => { const [r, g, b] = parse(it).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; }; \
                    const paper = light(getComputedStyle(document.documentElement).backgroundColor); \
                    return [...document.querySelectorAll('main *, .filters a, footer *')].filter((it) => [...it.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) \
                    .map((it) => { const ink = light(getComputedStyle(it).color); return [(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), it.className + ' ' + it.tagName]; }) \
                    .filter((it) => it[0] < 4.5 && !it[1].startsWith('any')).map((it) => it.join(' ')).join('; '); })()";
                assert_eq!(browser.value(faint), "", "{path}, {scheme}");
            }
        }
    }
}
