//! The address at which a Postgres server listens, and the URLs of its databases.

use std::{net::SocketAddr, path::PathBuf};

use reqwest::Url;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{self, AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// The responses of a connection.
pub type FromServer = Box<dyn AsyncRead + Send + Unpin>;
/// The requests of a connection. Dropping it closes the connection for writing.
pub type ToServer = Box<dyn AsyncWrite + Send + Unpin>;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The file of a Unix socket.
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String, u16),
}

impl Endpoint {
    /// The server of this URL.
    pub fn of(url: &str) -> Self {
        let options: PgConnectOptions = url.parse().unwrap();
        let port = options.get_port();
        match options.get_socket() {
            Some(folder) => Self::Unix(folder.join(format!(".s.PGSQL.{port}"))),
            None => Self::Tcp(options.get_host().to_owned(), port),
        }
    }

    /// Opens a connection without TLS.
    ///
    /// # Errors
    /// The server does not accept it.
    pub async fn connect(&self) -> io::Result<(FromServer, ToServer)> {
        match self {
            Self::Unix(file) => {
                let (from, to) = UnixStream::connect(file).await?.into_split();
                Ok((Box::new(from), Box::new(to)))
            }
            Self::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let (from, to) = stream.into_split();
                Ok((Box::new(from), Box::new(to)))
            }
        }
    }
}

/// The URL of another database of the same server.
pub fn url_of_database(url: &str, database: &str) -> String {
    let mut url = Url::parse(url).unwrap();
    url.set_path(database);
    url.into()
}

/// The URL of the same database, for the same user, at another address and without TLS.
pub fn url_at(url: &str, address: SocketAddr) -> String {
    let mut url = Url::parse(url).unwrap();
    let is_address = |name: &str| ["host", "hostaddr", "port", "sslmode"].contains(&name);
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| !is_address(name))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    url.set_ip_host(address.ip()).unwrap();
    url.set_port(Some(address.port())).unwrap();
    url.query_pairs_mut().clear().extend_pairs(kept).append_pair("sslmode", "disable");
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVER_TCP: &str = "postgres://user:pass%20word@db.example:6000/bank?sslmode=prefer&application_name=tests";
    const OVER_UNIX: &str = "postgres://user@localhost:5433/bank?host=/run/postgres";

    #[test]
    fn endpoint_is_read_from_the_url() {
        assert_eq!(Endpoint::of(OVER_TCP), Endpoint::Tcp("db.example".into(), 6000));
        assert_eq!(Endpoint::of(OVER_UNIX), Endpoint::Unix("/run/postgres/.s.PGSQL.5433".into()));
    }

    #[test]
    fn url_keeps_its_user_and_options_at_another_address() {
        let proxy = SocketAddr::from(([127, 0, 0, 1], 7000));
        let through = "postgres://user:pass%20word@127.0.0.1:7000/bank?application_name=tests&sslmode=disable";
        assert_eq!(url_at(OVER_TCP, proxy), through);
        assert_eq!(url_at(OVER_UNIX, proxy), "postgres://user@127.0.0.1:7000/bank?sslmode=disable");
        assert_eq!(url_of_database(OVER_UNIX, "other"), "postgres://user@localhost:5433/other?host=/run/postgres");
    }
}
