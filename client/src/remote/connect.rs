//! A connection to a server: over TCP and TLS, a unix socket, or the standard input and output of a program that ssh
//! starts.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use super::address::Route;
use super::transport::Body;

/// How long it may take until the other end is there.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// What the server may send of one stream, and of all, before it was taken.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// Connects.
pub(super) async fn connect(route: &Route, tls: &Arc<ClientConfig>) -> io::Result<SendRequest<Body>> {
    let connected = tokio::time::timeout(CONNECT_MAX, reach(route, tls)).await;
    connected.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "nobody answers"))?
}

async fn reach(route: &Route, tls: &Arc<ClientConfig>) -> io::Result<SendRequest<Body>> {
    match route {
        Route::Unix(path) => speak(UnixStream::connect(path).await?, None).await,
        Route::Tcp { host, port, is_plain } => {
            let stream = TcpStream::connect((&**host, *port)).await?;
            stream.set_nodelay(true)?;
            if *is_plain {
                return speak(stream, None).await;
            }
            let name = ServerName::try_from(host.clone())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
            speak(stream, None).await
        }
        Route::Ssh { destination, port, path } => {
            let program = std::env::var("DIPTYCH_SSH").unwrap_or_else(|_| "ssh".to_owned());
            let mut words = program.split_whitespace();
            let mut command = Command::new(words.next().unwrap_or("ssh"));
            command.args(words);
            if let Some(port) = port {
                command.arg("-p").arg(port.to_string());
            }
            let remote = format!("diptych serve --stdio -r {}", quoted(path));
            command.arg("--").arg(destination).arg(remote);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut child = command.spawn().map_err(|error| {
                io::Error::new(error.kind(), format!("{program} cannot be started: {error}"))
            })?;
            let (input, output) =
                child.stdin.take().zip(child.stdout.take()).ok_or(io::ErrorKind::BrokenPipe)?;
            speak(tokio::io::join(output, input), Some(child)).await
        }
    }
}

/// What a shell on the other end takes for one word.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    child: Option<tokio::process::Child>,
) -> io::Result<SendRequest<Body>> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        // Whoever waits for an answer is told what was wrong.
        let _ = connection.await;
        drop(child);
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_a_shell() {
        for path in ["/a b", "a'b", "$(x)", "`x`;y", "\"\\"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(path))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), path);
        }
    }
}
