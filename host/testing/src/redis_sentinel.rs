//! A Redis master with replicas and the Sentinels that watch it.

use std::io;
use std::time::Duration;

use crate::{Durability, RedisServer, wait_until};

/// How long the Sentinels may take to know everything, or to agree on another master.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many Sentinels there are; two must agree.
const SENTINELS: usize = 3;

/// Redis servers on loopback: a master, replicas, and three Sentinels. They are killed when this is
/// dropped.
pub struct RedisSentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// The name that the Sentinels know the master by.
    pub const MASTER: &str = "queue";

    /// Starts them; `extra` are more words of the servers' command lines.
    ///
    /// # Errors
    /// When one does not start, or they do not know each other in time.
    pub fn start(replicas: usize, durability: Durability, extra: &[&str]) -> io::Result<Self> {
        let mut words = vec!["--repl-diskless-sync-delay", "0"];
        words.extend_from_slice(extra);
        let master = RedisServer::start_with(durability, &words)?;
        let port = master.port().to_string();
        let mut servers = vec![master];
        let origin = format!("127.0.0.1 {port}");
        words.extend_from_slice(&["--replicaof", &origin]);
        for _ in 0..replicas {
            servers.push(RedisServer::start_with(durability, &words)?);
        }
        for replica in &servers[1..] {
            wait_until("a replica has its master's data", PATIENCE, || {
                Ok(replica.replication()?.is_linked())
            })?;
        }
        let name = Self::MASTER;
        let lines = format!(
            "sentinel monitor {name} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {name} 2000\n\
             sentinel failover-timeout {name} 6000\n"
        );
        let sentinels = (0..SENTINELS)
            .map(|_| RedisServer::start_sentinel(&lines))
            .collect::<io::Result<Vec<_>>>()?;
        let all = Self { servers, sentinels };
        all.settle(replicas)?;
        Ok(all)
    }

    /// Returns once every Sentinel knows the others and all replicas.
    fn settle(&self, replicas: usize) -> io::Result<()> {
        wait_until("the Sentinels know each other", PATIENCE, || {
            for sentinel in &self.sentinels {
                let known: Vec<String> = sentinel.ask(&["SENTINEL", "MASTER", Self::MASTER])?;
                let value = |name: &str| {
                    let at = known.iter().position(|word| word == name)?;
                    known.get(at + 1)?.parse::<usize>().ok()
                };
                if value("num-slaves") != Some(replicas)
                    || value("num-other-sentinels") != Some(SENTINELS - 1)
                {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// The Sentinels' addresses.
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(RedisServer::url).collect()
    }

    /// A server of data, by its number; 0 was the master at first.
    pub fn server(&mut self, n: usize) -> &mut RedisServer {
        &mut self.servers[n]
    }

    /// A Sentinel, by its number.
    pub fn sentinel(&mut self, n: usize) -> &mut RedisServer {
        &mut self.sentinels[n]
    }

    /// Which server the Sentinels name as the master.
    ///
    /// # Errors
    /// When no Sentinel answers, or they name another server.
    pub fn named(&self) -> io::Result<usize> {
        let sentinel = self.sentinels.iter().find(|sentinel| sentinel.answers());
        let sentinel = sentinel.ok_or_else(|| io::Error::other("no Sentinel answers"))?;
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::MASTER];
        let place: Vec<String> = sentinel.ask(&words)?;
        let port = |server: &RedisServer| place.get(1) == Some(&server.port().to_string());
        let server = self.servers.iter().position(port);
        server.ok_or_else(|| io::Error::other("the Sentinels name an unknown server"))
    }

    /// Which running server says that it is the master, and is the one that the Sentinels name.
    ///
    /// # Errors
    /// When there is none at the moment.
    pub fn master(&self) -> io::Result<usize> {
        let named = self.named()?;
        let server = &self.servers[named];
        if server.answers() && server.replication()?.is_master() {
            return Ok(named);
        }
        Err(io::Error::other("there is no master"))
    }

    /// Whether all servers run and have what the master has.
    ///
    /// # Errors
    /// When one cannot be asked, or there is no master at the moment.
    pub fn is_whole(&self) -> io::Result<bool> {
        let master = self.master()?;
        for (n, server) in self.servers.iter().enumerate() {
            let is = server.replication()?;
            let whole = if n == master {
                is.replicas() == self.servers.len() - 1
            } else {
                is.is_linked() && is.follows() == Some(self.servers[master].port())
            };
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All Sentinels.
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// All servers of data.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// Returns the new master once it is another than `old`.
    ///
    /// # Errors
    /// When none is promoted in time.
    pub fn promoted(&self, old: usize) -> io::Result<usize> {
        let mut new = old;
        wait_until("another master is promoted", PATIENCE, || {
            new = self.master()?;
            Ok(new != old)
        })?;
        Ok(new)
    }
}
