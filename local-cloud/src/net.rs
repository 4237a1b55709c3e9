//! TCP connections that a test can hurt: cut, reset or freeze from outside.
//!
//! Invariant: HTTP and WebSocket code above never knows; it sees an ordinary
//! end of file, an error, or a peer that has gone silent (a half-open link).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::sync::lock;

const OPEN: u8 = 0;
const FROZEN: u8 = 1;
const CUT: u8 = 2;
const RESET: u8 = 3;

/// The handle on one accepted connection.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    state: AtomicU8,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Tap {
    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
        self.reader.wake();
        self.writer.wake();
    }

    /// Ends the connection with FIN and nothing said before.
    pub(crate) fn cut(&self) {
        self.set(CUT);
    }

    /// Ends the connection with RST.
    pub(crate) fn reset(&self) {
        self.set(RESET);
    }

    /// Neither reads nor writes from now on; the connection stays open.
    pub(crate) fn freeze(&self) {
        self.set(FROZEN);
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::SeqCst)
    }
}

/// A connection with its [`Tap`].
pub(crate) struct Tapped {
    stream: TcpStream,
    tap: Arc<Tap>,
}

impl Tapped {
    /// `Some` when the connection is not to be used now.
    fn barred<T>(&self, waker: &AtomicWaker, cx: &Context<'_>) -> Option<Poll<io::Result<T>>> {
        waker.register(cx.waker());
        match self.tap.state() {
            OPEN => None,
            FROZEN => Some(Poll::Pending),
            state => {
                if state == RESET {
                    // Best effort: without it the peer sees FIN.
                    let _ = self.stream.set_zero_linger();
                }
                Some(Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())))
            }
        }
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(barred) = this.barred(&this.tap.reader, cx) {
            return barred;
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(barred) = this.barred(&this.tap.writer, cx) {
            return barred;
        }
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(barred) = this.barred(&this.tap.writer, cx) {
            return barred;
        }
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(barred) = this.barred(&this.tap.writer, cx) {
            return barred;
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(barred) = this.barred(&this.tap.writer, cx) {
            return barred;
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// All connections of one server, to end them together.
#[derive(Clone, Default)]
pub(crate) struct Taps(Arc<Mutex<Vec<Weak<Tap>>>>);

impl Taps {
    fn add(&self, tap: &Arc<Tap>) {
        let mut all = lock(&self.0);
        if all.len() == all.capacity() {
            all.retain(|tap| tap.strong_count() > 0);
        }
        all.push(Arc::downgrade(tap));
    }

    /// Ends every connection, also the half-open ones.
    pub(crate) fn cut_all(&self) {
        for tap in lock(&self.0).drain(..).filter_map(|tap| tap.upgrade()) {
            tap.cut();
        }
    }
}

/// The listening socket, handing out tapped connections.
pub(crate) struct TapListener {
    pub(crate) listener: TcpListener,
    pub(crate) taps: Taps,
}

impl Listener for TapListener {
    type Io = Tapped;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Tapped, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Frames are small and each matters at once; a failure costs latency only.
        let _ = stream.set_nodelay(true);
        let tap = Arc::new(Tap::default());
        self.taps.add(&tap);
        (Tapped { stream, tap }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// What a handler knows of its connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(crate) Arc<Tap>);

impl Connected<IncomingStream<'_, TapListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TapListener>) -> Self {
        Self(stream.io().tap.clone())
    }
}
