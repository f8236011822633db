//! One name for TCP and Unix sockets.

use std::io;
use std::time::Duration;

use orchestra_core::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

pub(super) type Reader<'a> = Box<dyn AsyncRead + Send + Unpin + 'a>;
pub(super) type Writer<'a> = Box<dyn AsyncWrite + Send + Unpin + 'a>;

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) async fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => Self::tcp(TcpStream::connect(address).await?),
            Endpoint::Host { name, port } => {
                Self::tcp(TcpStream::connect((name.as_ref(), *port)).await?)
            }
            Endpoint::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
            other => Err(unsupported(other)),
        }
    }

    /// Without the delay that the system adds to small writes: all delays here are asked for.
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    pub(super) fn halves(&mut self) -> (Reader<'_>, Writer<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer) = stream.split();
                (Box::new(reader), Box::new(writer))
            }
            Self::Unix(stream) => {
                let (reader, writer) = stream.split();
                (Box::new(reader), Box::new(writer))
            }
        }
    }

    /// Closes with a reset, where the protocol has one: unsent bytes are discarded.
    pub(super) fn abort(self) {
        if let Self::Tcp(stream) = self {
            let _gone_already =
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        }
    }
}

pub(super) fn unsupported(endpoint: &Endpoint) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("{endpoint} is of a kind that the proxy does not know"),
    )
}
