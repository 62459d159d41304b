//! A Redis server of its own.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use tempfile::TempDir;

use crate::Certificates;
use crate::leash::Leash;

/// Names the server's program when it is not `redis-server` on the path.
const PROGRAM: &str = "WASMHOOK_REDIS_SERVER";
/// How long a server may take to start or stop.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the server writes to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: a restart starts empty.
    None,
    /// The append-only file, synced once a second.
    EverySecond,
    /// The append-only file, synced before every answer.
    Always,
}

/// What the program is started as.
#[derive(Debug, Clone)]
enum Kind {
    /// A server of data.
    Data(Durability),
    /// A Sentinel, with the lines of its file.
    Sentinel(String),
}

/// Keeps the news of ended processes from a thread until it is dropped: reading with a time limit fails when a signal
/// comes, whatever its handler says of it.
struct Undisturbed(SigSet);

impl Undisturbed {
    fn start() -> io::Result<Self> {
        let mut news = SigSet::empty();
        news.add(Signal::SIGCHLD);
        Ok(Self(news.thread_swap_mask(SigmaskHow::SIG_BLOCK)?))
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        // It took what was there before, so it takes it again.
        let _ = self.0.thread_set_mask();
    }
}

/// A Redis server on a free loopback port with a folder of its own. It is killed and its folder
/// removed when this is dropped; killed also when this process ends without that.
pub struct RedisServer {
    program: OsString,
    port: u16,
    kind: Kind,
    extra: Vec<String>,
    folder: TempDir,
    child: Option<Child>,
    leash: Option<Leash>,
    paused: AtomicBool,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk.
    ///
    /// # Errors
    /// Says what to install when there is no server program.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Durability::None, &[])
    }

    /// Starts a server; `extra` are more of its command line's words.
    ///
    /// # Errors
    /// Says what to install when there is no server program.
    pub fn start_with(durability: Durability, extra: &[&str]) -> io::Result<Self> {
        Self::start_as(&Kind::Data(durability), extra)
    }

    /// Starts a Sentinel with these lines in its file.
    pub(crate) fn start_sentinel(lines: &str) -> io::Result<Self> {
        Self::start_as(&Kind::Sentinel(lines.to_owned()), &[])
    }

    fn start_as(kind: &Kind, extra: &[&str]) -> io::Result<Self> {
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "redis-server".into());
        let mut last = None;
        // Another process may take the free port first.
        for _ in 0..5 {
            let mut server = Self {
                program: program.clone(),
                port: free_port()?,
                kind: kind.clone(),
                extra: extra.iter().map(|word| (*word).to_owned()).collect(),
                folder: TempDir::with_prefix("wasmhook-redis-")?,
                child: None,
                leash: None,
                paused: AtomicBool::new(false),
            };
            match server.restart() {
                Ok(()) => return Ok(server),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("no Redis server could be started")))
    }

    /// Starts a server that takes TLS connections on another port; `clients` is whether it asks
    /// clients for a certificate. Returns that port.
    ///
    /// # Errors
    /// Says what to install when there is no server program.
    pub fn start_tls(
        certificates: &Certificates,
        clients: bool,
        extra: &[&str],
    ) -> io::Result<(Self, u16)> {
        let port = free_port()?;
        let number = port.to_string();
        let files = certificates.server_words(clients);
        let mut words: Vec<&str> = files.iter().map(String::as_str).collect();
        words.extend_from_slice(&["--tls-port", &number]);
        words.extend_from_slice(extra);
        Ok((Self::start_with(Durability::None, &words)?, port))
    }

    /// The address, for clients.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port on loopback, the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that the server writes to.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's process, while it runs: for who measures it.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it can be asked: it runs and is not paused.
    pub fn answers(&self) -> bool {
        self.child.is_some() && !self.paused.load(Ordering::SeqCst)
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`]; stops it first if it runs.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop()?;
        let mut command = Command::new(&self.program);
        command.current_dir(self.folder.path());
        if let Kind::Sentinel(lines) = &self.kind {
            let file = self.folder.path().join("sentinel.conf");
            // It writes to its file what it learns, which a restart must find again.
            if !file.exists() {
                std::fs::write(&file, lines)?;
            }
            command.arg(file).arg("--sentinel");
        }
        command
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1"])
            .args(["--daemonize", "no"])
            .args(["--dir", &self.folder.path().to_string_lossy()]);
        if let Kind::Data(durability) = self.kind {
            command.args(["--save", ""]);
            match durability {
                Durability::None => command.args(["--appendonly", "no"]),
                Durability::EverySecond => {
                    command.args(["--appendonly", "yes", "--appendfsync", "everysec"])
                }
                Durability::Always => {
                    command.args(["--appendonly", "yes", "--appendfsync", "always"])
                }
            };
        }
        command.args(&self.extra);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        let child = command.spawn().map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                io::Error::new(
                    error.kind(),
                    format!(
                        "there is no {}; install the Debian package redis-server, or name the program in {PROGRAM}",
                        Path::new(&self.program).display()
                    ),
                )
            } else {
                error
            }
        })?;
        let pid = child.id();
        self.paused.store(false, Ordering::SeqCst);
        self.child = Some(child);
        self.leash = Some(Leash::tie(pid)?);
        self.wait_until_ready()
    }

    /// Asks the server something on a connection of its own.
    ///
    /// # Errors
    /// When it cannot be reached or answers with an error.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> io::Result<T> {
        let _undisturbed = Undisturbed::start()?;
        let asking = || {
            let mut connection = redis::Client::open(self.url())?.get_connection()?;
            connection.set_read_timeout(Some(PATIENCE))?;
            let (name, arguments) = words.split_first().unwrap_or((&"PING", &[]));
            redis::cmd(name).arg(arguments).query(&mut connection)
        };
        asking().map_err(|error: redis::RedisError| {
            io::Error::other(format!("{} of {}: {error}", words.join(" "), self.url()))
        })
    }

    /// Asks it to end, as an orderly shutdown does, and waits for that.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> io::Result<()> {
        self.leash = None;
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        if let Ok(mut connection) = self.dial() {
            let _ = connection.write_all(b"SHUTDOWN NOSAVE\r\n");
        }
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill()?;
        child.wait()?;
        Err(io::Error::other("the Redis server had to be killed"))
    }

    /// Ends it at once, as `kill -9` or a crash does.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.leash = None;
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Stops it in its tracks, as an overloaded machine does: its connections stay, nothing answers.
    ///
    /// # Errors
    /// When it does not run, or the system refuses.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(rustix::process::Signal::STOP)?;
        self.paused.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Lets it go on after [`Self::pause`].
    ///
    /// # Errors
    /// When it does not run, or the system refuses.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(rustix::process::Signal::CONT)?;
        self.paused.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid
            .and_then(rustix::process::Pid::from_raw)
            .ok_or_else(|| io::Error::other("the Redis server does not run"))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// What it says about its part in replication.
    pub(crate) fn replication(&self) -> io::Result<Replication> {
        self.ask(&["INFO", "replication"]).map(Replication)
    }

    fn dial(&self) -> io::Result<TcpStream> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(connection)
    }

    fn ping(&self) -> io::Result<bool> {
        let mut connection = self.dial()?;
        connection.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG" || answer.starts_with(b"-NOA"))
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                self.child = None;
                self.leash = None;
                return Err(io::Error::other(format!(
                    "the Redis server ended at once: {status}"
                )));
            }
            if self.ping().unwrap_or(false) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill()?;
        Err(io::Error::other("the Redis server does not answer"))
    }
}

/// The words of a server about its part in replication.
pub(crate) struct Replication(String);

impl Replication {
    fn value(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = pairs.find(|(known, _)| *known == name)?;
        Some(value.trim())
    }

    pub(crate) fn is_master(&self) -> bool {
        self.value("role") == Some("master")
    }

    /// The port of the master that it follows.
    pub(crate) fn follows(&self) -> Option<u16> {
        self.value("master_port")?.parse().ok()
    }

    /// Whether it has what its master has, as a replica.
    pub(crate) fn is_linked(&self) -> bool {
        self.value("master_link_status") == Some("up")
    }

    /// How many replicas have what it has, as a master.
    pub(crate) fn replicas(&self) -> usize {
        let online = |line: &&str| line.starts_with("slave") && line.contains("state=online");
        self.0.lines().filter(online).count()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A port that is free, and stays so while its server is away for a moment: it is below those that systems
/// give to connections.
pub fn free_port() -> io::Result<u16> {
    for _ in 0..100 {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other("there is no free port"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use nix::sys::pthread::{pthread_kill, pthread_self};
    use tokio::signal::unix::{SignalKind, signal};

    use super::*;

    #[tokio::test]
    async fn a_question_is_answered_though_processes_end_meanwhile() {
        // What is ignored interrupts nothing.
        let _handler = signal(SignalKind::child()).unwrap();
        let server = RedisServer::start().unwrap();
        let (tell, told) = mpsc::channel();
        let answer: Option<String> = thread::scope(|scope| {
            let asking = scope.spawn(|| {
                tell.send(pthread_self()).unwrap();
                server.ask(&["BLPOP", "nothing", "0.5"])
            });
            let asked = told.recv().unwrap();
            while !asking.is_finished() {
                pthread_kill(asked, Signal::SIGCHLD).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
            asking.join().unwrap().unwrap()
        });
        assert_eq!(answer, None);
    }

    #[test]
    fn a_server_tells_its_part_in_replication() {
        let master = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
            slave0:ip=127.0.0.1,port=7001,state=online,offset=14,lag=0\r\n\
            slave1:ip=127.0.0.1,port=7002,state=wait_bgsave,offset=0,lag=0\r\n";
        let master = Replication(master.to_owned());
        assert!(master.is_master() && !master.is_linked());
        assert_eq!((master.replicas(), master.follows()), (1, None));
        let replica = "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:7000\r\n\
            master_link_status:up\r\n";
        let replica = Replication(replica.to_owned());
        assert!(!replica.is_master() && replica.is_linked());
        assert_eq!((replica.replicas(), replica.follows()), (0, Some(7000)));
    }
}
