//! A gate in front of a region: forwards TCP connections, or breaks them.

use std::{io, net::SocketAddr};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What a gate does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards all bytes.
    Open,
    /// Resets each connection once it is made.
    Resets,
    /// Refuses connections, and resets the present ones.
    Refuses,
    /// Accepts connections, and forwards nothing.
    Hangs,
}

/// Number of connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// A running gate. Dropping it closes the gate.
pub struct Gate {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: JoinHandle<io::Result<()>>,
}

impl Gate {
    /// Opens a gate to `target` on a free port.
    ///
    /// # Errors
    /// Returns an error if no port can be bound.
    pub async fn open(target: SocketAddr) -> io::Result<Self> {
        let listener = listen(([127, 0, 0, 1], 0).into())?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Open);
        let task = tokio::spawn(accept(listener, address, target, modes));
        Ok(Self { address, mode, task })
    }

    /// Changes the mode, also for the present connections.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // The same port is bound again after an outage.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(
    first: TcpListener,
    address: SocketAddr,
    target: SocketAddr,
    mut modes: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut listener = Some(first);
    loop {
        let refuses = *modes.borrow_and_update() == Mode::Refuses;
        listener = match listener {
            _ if refuses => None,
            Some(listener) => Some(listener),
            None => Some(listen(address)?),
        };
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return Ok(()) },
            accepted = accepted => {
                if let Ok((caller, _)) = accepted {
                    tokio::spawn(forward(caller, target, modes.clone()));
                }
            }
        }
    }
}

/// Forwards a connection until the mode changes.
async fn forward(mut caller: TcpStream, target: SocketAddr, mut modes: watch::Receiver<Mode>) -> io::Result<()> {
    if *modes.borrow() == Mode::Open {
        let mut region = TcpStream::connect(target).await?;
        caller.set_nodelay(true)?;
        region.set_nodelay(true)?;
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut caller, &mut region) => return copied.map(drop),
            _ = modes.wait_for(|mode| *mode != Mode::Open) => {}
        }
    }
    // A connection that hung does not recover: its peers have given up.
    let _ = modes.wait_for(|mode| *mode != Mode::Hangs).await;
    caller.set_zero_linger()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = peer.split();
                    let _ = tokio::io::copy(&mut reads, &mut writes).await;
                });
            }
        });
        address
    }

    async fn says_hello(address: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"hello").await?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).await?;
        assert_eq!(&reply, b"hello");
        Ok(stream)
    }

    #[tokio::test]
    async fn a_gate_forwards_refuses_resets_and_opens_again() {
        let gate = Gate::open(echo().await).await.expect("a gate");
        for mode in [Mode::Refuses, Mode::Resets] {
            let mut open = says_hello(gate.address).await.expect("open");
            gate.set(mode);
            let error = open.read_u8().await.expect_err("the connection is reset");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{mode:?}");
            assert!(says_hello(gate.address).await.is_err(), "{mode:?}");
            gate.set(Mode::Open);
            while says_hello(gate.address).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_gate_that_hangs_accepts_and_is_silent() {
        let gate = Gate::open(echo().await).await.expect("a gate");
        gate.set(Mode::Hangs);
        let silent = says_hello(gate.address);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(200), silent).await.is_err());
    }
}
