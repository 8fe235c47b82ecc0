//! A receiver of webhooks that can be killed, in this process: its sockets end from one moment to
//! the next. What counts is what it has answered with 200.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

/// Event and body.
type Call = (String, Value);

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    headers: Mutex<Vec<HashMap<String, String>>>,
    /// What it answers with.
    status: AtomicU16,
}

/// The receiver, and what it has taken in all its lives.
pub struct Receiver {
    address: String,
    shared: Arc<Shared>,
    life: Option<Life>,
}

struct Life {
    is_over: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
    accepting: JoinHandle<()>,
}

impl Receiver {
    /// One on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        shared.status.store(200, Ordering::SeqCst);
        let life = Some(Life::begin(listener, &shared));
        Self { address, shared, life }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Its sockets end.
    pub fn kill(&mut self) {
        let Some(life) = self.life.take() else { return };
        life.is_over.store(true, Ordering::SeqCst);
        for socket in life.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        life.accepting.join().unwrap();
    }

    /// It is there again.
    pub fn restart(&mut self) {
        let listener = TcpListener::bind(&self.address).unwrap();
        self.life = Some(Life::begin(listener, &self.shared));
    }

    /// From now on it answers so.
    pub fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::SeqCst);
    }

    /// What it has taken of this event.
    pub fn taken(&self, event: &str) -> Vec<Value> {
        let calls = self.shared.calls.lock().unwrap();
        calls.iter().filter(|(of, _)| of == event).map(|(_, body)| body.clone()).collect()
    }

    /// The headers of every call that it has taken, names in lower case.
    pub fn headers(&self) -> Vec<HashMap<String, String>> {
        self.shared.headers.lock().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Life {
    fn begin(listener: TcpListener, shared: &Arc<Shared>) -> Self {
        listener.set_nonblocking(true).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let sockets = Arc::new(Mutex::new(Vec::new()));
        let accepting = {
            let (is_over, sockets) = (is_over.clone(), Arc::clone(&sockets));
            let shared = shared.clone();
            thread::spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    let Ok((socket, _)) = listener.accept() else {
                        thread::sleep(Duration::from_millis(2));
                        continue;
                    };
                    socket.set_nonblocking(false).unwrap();
                    sockets.lock().unwrap().push(socket.try_clone().unwrap());
                    let (is_over, shared) = (is_over.clone(), shared.clone());
                    thread::spawn(move || while serve(&socket, &is_over, &shared).is_some() {});
                }
            })
        };
        Self { is_over, sockets, accepting }
    }
}

/// One call. What it answers with 200 counts, unless it is killed first.
fn serve(socket: &TcpStream, is_over: &AtomicBool, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|size| *size > 0)?;
    let event = line.split_once("?event=")?.1.split(' ').next()?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|size| *size > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let status = shared.status.load(Ordering::SeqCst);
    // A receiver that dies here has not taken it.
    if is_over.load(Ordering::SeqCst) {
        return None;
    }
    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
    (&mut &*socket).write_all(answer.as_bytes()).ok()?;
    if status == 200 {
        headers.insert("body".to_owned(), String::from_utf8_lossy(&body).into_owned());
        shared.calls.lock().unwrap().push((event, serde_json::from_slice(&body).unwrap()));
        shared.headers.lock().unwrap().push(headers);
    }
    Some(())
}
