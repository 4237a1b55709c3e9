//! Admits connections to an HTTP server of ours: at most so many at once, and
//! strangers only for so long. A client that sends its request byte by byte, or
//! reads the answer that way, loses its place instead of keeping it. Whoever
//! proved to be welcome may [stay](Peer::stay).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// The pause after an accept that failed, for want of descriptors usually.
const RETRY: Duration = Duration::from_millis(200);

/// Connections that the kernel keeps while ours are all taken.
const BACKLOG: u32 = 64;

/// How much a server lets in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once. Whoever comes later waits in the kernel's queue.
    pub(super) connections: usize,
    /// Connections at once that were not told to stay.
    pub(super) strangers: usize,
    /// From the first byte of a stranger's connection to the last.
    pub(super) lifetime: Duration,
}

/// Binds an address.
pub(super) fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    address: SocketAddr,
    stranger: Stranger,
}

/// The place of a stranger; given up, the connection is one that stays.
type Stranger = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

impl Peer {
    pub(super) fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// Lets the connection live as long as both sides want.
    pub(super) fn stay(&self) {
        drop(lock(&self.stranger).take());
    }
}

fn lock(stranger: &Stranger) -> std::sync::MutexGuard<'_, Option<OwnedSemaphorePermit>> {
    // Only ever taken: nothing half done can be left behind.
    stranger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connected<IncomingStream<'_, Gate>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Gate>) -> Self {
        Self {
            address: *stream.remote_addr(),
            stranger: stream.io().stranger.clone(),
        }
    }
}

pub(super) struct Gate {
    listener: TcpListener,
    places: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    lifetime: Duration,
}

impl Gate {
    pub(super) fn new(listener: TcpListener, limits: Limits) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(limits.connections)),
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            lifetime: limits.lifetime,
        }
    }
}

impl Listener for Gate {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        loop {
            // The semaphores are never closed; were they, no visitor would be counted.
            let place = self.places.clone().acquire_owned().await.ok();
            let stranger = self.strangers.clone().acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Frames are small and wanted at once.
                    let _ = stream.set_nodelay(true);
                    let visit = Visit {
                        stream,
                        deadline: Some(Box::pin(tokio::time::sleep(self.lifetime))),
                        stranger: Arc::new(Mutex::new(stranger)),
                        _place: place,
                    };
                    return (visit, peer);
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends by itself unless it may stay.
pub(super) struct Visit {
    stream: TcpStream,
    deadline: Option<Pin<Box<Sleep>>>,
    stranger: Stranger,
    _place: Option<OwnedSemaphorePermit>,
}

impl Visit {
    fn over(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(deadline) = &mut self.deadline else {
            return Ok(());
        };
        if lock(&self.stranger).is_none() {
            self.deadline = None;
            return Ok(());
        }
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.over(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.over(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
