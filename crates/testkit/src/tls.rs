//! A self-signed certificate for servers on this machine.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

/// A certificate and its private key, in files that are deleted on drop.
pub struct Identity {
    folder: TempDir,
    acceptor: TlsAcceptor,
}

impl Identity {
    /// A new self-signed certificate for `localhost` and 127.0.0.1.
    pub fn self_signed() -> Self {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let folder = tempfile::Builder::new().prefix("passbook-tls.").tempdir().unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key);
        let identity = Self { folder, acceptor: TlsAcceptor::from(Arc::new(server.unwrap())) };
        fs::write(identity.certificate(), cert.pem()).unwrap();
        fs::write(identity.key(), signing_key.serialize_pem()).unwrap();
        identity
    }

    /// The file of the certificate. A process whose `SSL_CERT_FILE` names it trusts these servers.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// The file of the private key.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Starts a TLS proxy to a server without TLS. Returns the proxy's address.
    pub async fn proxy_to(&self, server: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = self.acceptor.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // The handshake fails if the client does not trust the certificate.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut server).await;
                });
            }
        });
        address
    }
}
