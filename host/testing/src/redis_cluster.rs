//! A Redis Cluster of its own.

use std::io;
use std::time::Duration;

use crate::redis_server::free_port;
use crate::{Certificates, Durability, RedisServer, wait_until};

/// How many slots a cluster has.
const SLOTS: usize = 16_384;
/// How long the nodes may take to agree.
const PATIENCE: Duration = Duration::from_secs(60);

/// Redis servers on loopback that form a cluster. They are killed when this is dropped.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    /// The ports for TLS, if there are.
    secure: Vec<u16>,
    certificates: Option<Certificates>,
}

impl RedisCluster {
    /// Starts `masters`, which share the slots evenly, and a replica of each if `replicas`. The
    /// replicas follow in the order of their masters.
    ///
    /// # Errors
    /// When a server does not start, or the servers do not agree in time.
    pub fn start(masters: usize, replicas: bool, durability: Durability) -> io::Result<Self> {
        Self::start_as(masters, replicas, durability, None)
    }

    /// Starts masters that talk TLS to each other and to clients, by these certificates.
    ///
    /// # Errors
    /// When a server does not start, or the servers do not agree in time.
    pub fn start_tls(masters: usize, certificates: Certificates) -> io::Result<Self> {
        Self::start_as(masters, false, Durability::None, Some(certificates))
    }

    fn start_as(
        masters: usize,
        replicas: bool,
        durability: Durability,
        certificates: Option<Certificates>,
    ) -> io::Result<Self> {
        let mut cluster = Self {
            nodes: Vec::new(),
            secure: Vec::new(),
            certificates,
        };
        let all = if replicas { masters * 2 } else { masters };
        for _ in 0..all {
            cluster.add(durability)?;
        }
        for n in 0..masters {
            let (first, last) = (SLOTS * n / masters, SLOTS * (n + 1) / masters - 1);
            let range = [first.to_string(), last.to_string()];
            let node = &cluster.nodes[n];
            let () = node.ask(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]])?;
        }
        for n in masters..all {
            let id = cluster.id(n - masters)?;
            let node = &cluster.nodes[n];
            wait_until("a master is known to its replica", PATIENCE, || {
                node.ask::<()>(&["CLUSTER", "REPLICATE", &id])
                    .map(|()| true)
            })?;
        }
        cluster.settle()?;
        for n in masters..all {
            let node = &cluster.nodes[n];
            wait_until("a replica has its master's data", PATIENCE, || {
                Ok(node.replication()?.is_linked())
            })?;
        }
        Ok(cluster)
    }

    /// Starts one more node, which has no slots; its number is the last.
    ///
    /// # Errors
    /// When the server does not start.
    pub fn add(&mut self, durability: Durability) -> io::Result<()> {
        let bus = free_port()?.to_string();
        let mut files = Vec::new();
        if let Some(certificates) = &self.certificates {
            let port = free_port()?;
            self.secure.push(port);
            files = certificates.server_words(false);
            files.extend(["--tls-cluster", "yes", "--tls-port"].map(str::to_owned));
            files.push(port.to_string());
        }
        let mut words: Vec<&str> = files.iter().map(String::as_str).collect();
        words.extend_from_slice(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            // Long enough for a busy machine, short enough to be waited for.
            "--cluster-node-timeout",
            "3000",
            "--cluster-replica-validity-factor",
            "0",
            "--repl-diskless-sync-delay",
            "0",
        ]);
        self.nodes
            .push(RedisServer::start_with(durability, &words)?);
        let last = self.nodes.len() - 1;
        let epoch = (last + 1).to_string();
        let () = self.nodes[last].ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])?;
        if last > 0 {
            self.meet(last)?;
        }
        Ok(())
    }

    /// Makes a node known to the first.
    fn meet(&self, n: usize) -> io::Result<()> {
        let node = &self.nodes[n];
        let mut bus: Vec<String> = node.ask(&["CONFIG", "GET", "cluster-port"])?;
        let port = node.port().to_string();
        let bus = bus.pop().unwrap_or_default();
        self.nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])
    }

    /// Returns once all nodes that run know each other and serve all slots.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn settle(&self) -> io::Result<()> {
        wait_until("the cluster's nodes agree", PATIENCE, || self.agrees())
    }

    /// Whether all nodes that run know each other and serve all slots.
    fn agrees(&self) -> io::Result<bool> {
        for node in self.nodes.iter().filter(|node| node.answers()) {
            let info: String = node.ask(&["CLUSTER", "INFO"])?;
            let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
            if !info.contains("cluster_state:ok") || !info.contains(&known) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether all nodes run, agree, and are masters that a replica has the data of, or replicas
    /// that have their master's: for a cluster with replicas.
    ///
    /// # Errors
    /// When a node cannot be asked.
    pub fn is_whole(&self) -> io::Result<bool> {
        for node in &self.nodes {
            let is = node.replication()?;
            let whole = if is.is_master() {
                is.replicas() > 0
            } else {
                is.is_linked()
            };
            if !whole {
                return Ok(false);
            }
        }
        self.agrees()
    }

    /// The nodes that say that they are masters.
    ///
    /// # Errors
    /// When a node cannot be asked.
    pub fn masters(&self) -> io::Result<Vec<usize>> {
        let mut masters = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            if node.answers() && node.replication()?.is_master() {
                masters.push(n);
            }
        }
        Ok(masters)
    }

    /// A replica of a node.
    ///
    /// # Errors
    /// When it has none that answers.
    pub fn replica_of(&self, master: usize) -> io::Result<usize> {
        let port = self.nodes[master].port();
        let follows = |node: &RedisServer| {
            node.answers()
                && node
                    .replication()
                    .is_ok_and(|is| is.follows() == Some(port))
        };
        let replica = self.nodes.iter().position(follows);
        replica.ok_or_else(|| io::Error::other("the master has no replica"))
    }

    /// The addresses of all nodes, with TLS if they have it.
    pub fn urls(&self) -> Vec<String> {
        if self.certificates.is_some() {
            let url = |port| format!("rediss://127.0.0.1:{port}");
            return self.secure.iter().map(url).collect();
        }
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// What the nodes show, if they talk TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// A node, by its number.
    pub fn node(&mut self, n: usize) -> &mut RedisServer {
        &mut self.nodes[n]
    }

    /// All nodes.
    pub fn all(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn id(&self, n: usize) -> io::Result<String> {
        self.nodes[n].ask(&["CLUSTER", "MYID"])
    }

    /// The slot of a key.
    ///
    /// # Errors
    /// When no node answers.
    pub fn slot(&self, key: &str) -> io::Result<u16> {
        let node = self.nodes.iter().find(|node| node.answers());
        let node = node.ok_or_else(|| io::Error::other("no node answers"))?;
        node.ask(&["CLUSTER", "KEYSLOT", key])
    }

    /// Which running node serves a slot, as the node itself says.
    ///
    /// # Errors
    /// When none says that it does.
    pub fn owner(&self, slot: u16) -> io::Result<usize> {
        for (n, node) in self.nodes.iter().enumerate() {
            if !node.answers() {
                continue;
            }
            let Ok(nodes) = node.ask::<String>(&["CLUSTER", "NODES"]) else {
                continue;
            };
            let myself = nodes.lines().find(|line| line.contains("myself,master"));
            let ranges = myself.into_iter().flat_map(|line| line.split(' ').skip(8));
            for range in ranges {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>())
                    && (first..=last).contains(&slot)
                {
                    return Ok(n);
                }
            }
        }
        Err(io::Error::other(format!("nobody serves slot {slot}")))
    }

    /// Begins to move a slot.
    ///
    /// # Errors
    /// When the nodes refuse.
    pub fn begin_move(&self, slot: u16, to: usize) -> io::Result<()> {
        let from = self.owner(slot)?;
        let (source, target) = (self.id(from)?, self.id(to)?);
        let slot = slot.to_string();
        let () = self.nodes[to].ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source])?;
        self.nodes[from].ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target])
    }

    /// Moves some keys of a slot that is on the move; returns whether there are more.
    ///
    /// # Errors
    /// When the nodes refuse.
    pub fn move_keys(&self, slot: u16, to: usize, most: usize) -> io::Result<bool> {
        let from = &self.nodes[self.owner(slot)?];
        let (slot, most) = (slot.to_string(), most.to_string());
        let keys: Vec<Vec<u8>> = from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, &most])?;
        if keys.is_empty() {
            return Ok(false);
        }
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(self.nodes[to].port()).arg("");
        migrate.arg(0).arg(20_000).arg("KEYS").arg(keys);
        let moving = || {
            let mut connection = redis::Client::open(from.url())?.get_connection()?;
            migrate.exec(&mut connection)
        };
        moving().map_err(|error: redis::RedisError| io::Error::other(error.to_string()))?;
        Ok(true)
    }

    /// Ends the move of a slot whose keys have all been moved.
    ///
    /// # Errors
    /// When the nodes refuse.
    pub fn end_move(&self, slot: u16, to: usize) -> io::Result<()> {
        let from = self.owner(slot)?;
        let target = self.id(to)?;
        let slot = slot.to_string();
        for n in [to, from] {
            let () = self.nodes[n].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &target])?;
        }
        Ok(())
    }
}
