//! A network that can be slow, cut or silent: a TCP proxy between one host and Redis.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Passes bytes on.
    Fine,
    /// Passes them on after a while.
    Slow(Duration),
    /// Closes connections and lets none through.
    Cut,
    /// Passes nothing on and says nothing. Connections that were there are closed afterwards, for
    /// what they carried is lost.
    Silent,
}

/// Listens until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts one to a port on loopback.
    pub(crate) async fn start(to: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (network, watched) = watch::channel(Network::Fine);
        let task = tokio::spawn(accept(
            listener,
            SocketAddr::from((Ipv4Addr::LOCALHOST, to)),
            watched,
        ));
        Ok(Self {
            port,
            network,
            task,
        })
    }

    /// The port to connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What the network does from now on.
    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, network: watch::Receiver<Network>) {
    // Dropped with this task, which ends the connections.
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let now = *network.borrow();
        if now != Network::Cut {
            connections.spawn(carry(near, to, network.clone()));
        }
    }
}

/// Carries one connection until either end closes it or the network fails.
async fn carry(near: TcpStream, to: SocketAddr, mut network: watch::Receiver<Network>) {
    if *network.borrow_and_update() == Network::Silent {
        // It was accepted, and nothing follows.
        let _ = network.changed().await;
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else {
        return;
    };
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::select! {
        () = pump(near_read, far_write, network.clone()) => {}
        () = pump(far_read, near_write, network.clone()) => {}
        () = broken(network) => {}
    }
}

/// Moves bytes one way.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, network: watch::Receiver<Network>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let now = *network.borrow();
        match now {
            Network::Fine => {}
            Network::Slow(by) => tokio::time::sleep(by).await,
            // What was read is lost; who waits for the network closes the connection.
            Network::Cut | Network::Silent => std::future::pending().await,
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Returns when the connection is to be closed.
async fn broken(mut network: watch::Receiver<Network>) {
    let silent = network
        .wait_for(|now| matches!(now, Network::Cut | Network::Silent))
        .await;
    if silent.is_ok_and(|now| *now == Network::Silent) {
        let _ = network.wait_for(|now| *now != Network::Silent).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Answers every byte with the same byte.
    async fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        port
    }

    async fn says(socket: &mut TcpStream, byte: u8) -> Option<u8> {
        socket.write_all(&[byte]).await.ok()?;
        let mut answer = [0];
        let read = tokio::time::timeout(PATIENCE, socket.read_exact(&mut answer)).await;
        read.expect("an answer or an end").ok()?;
        Some(answer[0])
    }

    #[tokio::test]
    async fn a_cut_closes_connections_and_refuses_new_ones() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .unwrap();
        assert_eq!(says(&mut socket, 1).await, Some(1));
        proxy.set(Network::Cut);
        assert_eq!(says(&mut socket, 2).await, None);
        let mut socket = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .unwrap();
        assert_eq!(says(&mut socket, 3).await, None);
        proxy.set(Network::Fine);
        let mut socket = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .unwrap();
        assert_eq!(says(&mut socket, 4).await, Some(4));
    }

    #[tokio::test]
    async fn a_silent_network_answers_nothing_and_closes_later() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .unwrap();
        assert_eq!(says(&mut socket, 1).await, Some(1));
        proxy.set(Network::Silent);
        let waiting = tokio::time::timeout(Duration::from_millis(200), says(&mut socket, 2));
        assert!(waiting.await.is_err(), "something came through");
        proxy.set(Network::Fine);
        assert_eq!(says(&mut socket, 3).await, None);
    }

    #[tokio::test]
    async fn a_slow_network_keeps_every_byte() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        proxy.set(Network::Slow(Duration::from_millis(20)));
        let mut socket = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .unwrap();
        for byte in 0..5 {
            assert_eq!(says(&mut socket, byte).await, Some(byte));
        }
    }
}
