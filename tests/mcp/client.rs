//! A client of `op-dbus mcp`: what it says and hears on pipes, line by line.

use std::sync::mpsc::{Sender, channel};

use serde_json::{Value, json};
use support::program::{Running, Workplace};

const PROTOCOL: &str = "2025-06-18";

/// A client of `op-dbus mcp`.
pub(crate) struct Client {
    pub(crate) lines: Option<Sender<Vec<u8>>>,
    pub(crate) running: Running,
    sent_count: u64,
    /// What somebody answers who is asked: the result of `elicitation/create`, or an error.
    pub(crate) answers: Vec<Value>,
    /// What they were asked.
    pub(crate) questions: Vec<String>,
}

impl Client {
    /// Starts the program, and says nothing yet.
    pub(crate) fn connect(place: &Workplace, arguments: &[&str]) -> Self {
        let (sender, receiver) = channel::<Vec<u8>>();
        let line = ["mcp", "--plugins", "plugins"];
        let program = place.op(line).arguments(arguments).input_from(move |stdin| {
            for bytes in receiver {
                stdin.write_all(&bytes)?;
                stdin.flush()?;
            }
            Ok(())
        });
        let lines = Some(sender);
        let (answers, questions) = (Vec::new(), Vec::new());
        Self { lines, running: program.start(), sent_count: 0, answers, questions }
    }

    /// The same, and begins as the protocol says, able to do this.
    pub(crate) fn begin(place: &Workplace, arguments: &[&str], capabilities: Value) -> Self {
        let mut client = Self::connect(place, arguments);
        let begun = client.initialize(capabilities);
        assert_eq!(begun["result"]["protocolVersion"], PROTOCOL, "{begun}");
        client
    }

    pub(crate) fn initialize(&mut self, capabilities: Value) -> Value {
        let client = json!({ "name": "test", "version": "1" });
        let parameters = json!({
            "protocolVersion": PROTOCOL, "capabilities": capabilities, "clientInfo": client,
        });
        let begun = self.request("initialize", &parameters);
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string());
        begun
    }

    fn send(&self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        self.lines.as_ref().unwrap().send(bytes.to_vec()).unwrap();
    }

    /// Asks something, answers what is asked meanwhile, and returns the whole answer.
    pub(crate) fn request(&mut self, method: &str, parameters: &Value) -> Value {
        self.sent_count += 1;
        let id = self.sent_count;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": parameters });
        self.send(&request.to_string());
        loop {
            let line = self.running.next_line().expect("an answer");
            let message: Value = serde_json::from_str(&line).expect("only the protocol");
            assert_eq!(message["jsonrpc"], "2.0", "{message}");
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
            if message["method"] == "elicitation/create" {
                self.questions.push(message["params"]["message"].as_str().unwrap().to_owned());
                let mut answer = self.answers.remove(0);
                answer["jsonrpc"] = "2.0".into();
                answer["id"] = message["id"].clone();
                self.send(&answer.to_string());
            }
        }
    }

    /// Uses a tool; returns what it tells, and whether that is an error.
    pub(crate) fn tool(&mut self, name: &str, arguments: Value) -> (Value, bool) {
        let answer = self.request("tools/call", &json!({ "name": name, "arguments": arguments }));
        let result = &answer["result"];
        let is_error = result["isError"].as_bool().unwrap_or_else(|| panic!("{answer}"));
        let text = result["content"][0]["text"].as_str().unwrap();
        let told = result["structuredContent"].clone();
        match is_error {
            true => {
                let error = &told["error"];
                let message = error["message"].as_str().unwrap();
                let remedy = error["remedy"].as_str().expect("a remedy");
                assert_eq!(text, format!("{message}\nremedy: {remedy}"));
            }
            false => assert_eq!(serde_json::from_str::<Value>(text).unwrap(), told),
        }
        (told, is_error)
    }

    pub(crate) fn done(&mut self, name: &str, arguments: Value) -> Value {
        let (told, is_error) = self.tool(name, arguments);
        assert!(!is_error, "{told}");
        told
    }

    /// Uses a tool that refuses, and returns what it says.
    pub(crate) fn refused(&mut self, name: &str, arguments: Value) -> String {
        let (told, is_error) = self.tool(name, arguments);
        assert!(is_error, "{told}");
        format!("{}\n{}", told["error"]["message"], told["error"]["remedy"])
    }

    /// Ends the input; nothing must be left to say.
    pub(crate) fn end(mut self) {
        self.lines = None;
        let ended = self.running.finish().succeeded();
        assert_eq!((ended.text().as_str(), ended.stderr.as_str()), ("", ""));
    }
}
