//! The server's certificate: one that it is given, or one of its own that clients know by its fingerprint.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tokens::hex;

/// A certificate and its key as files. They are read again when they change.
#[derive(Debug)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<(Stamp, Arc<CertifiedKey>)>,
}

/// When the two files were changed last.
type Stamp = [Option<SystemTime>; 2];

impl Certificate {
    /// The certificate chain in `cert` and the key in `key`, both PEM.
    pub fn load(cert: PathBuf, key: PathBuf) -> io::Result<Arc<Self>> {
        let current = RwLock::new((stamp(&cert, &key), read(&cert, &key)?));
        Ok(Arc::new(Self { cert, key, current }))
    }

    /// The server's own, in its state; made if it is not there.
    pub fn own(state: &Path, names: Vec<String>) -> io::Result<Arc<Self>> {
        let (cert, key) = (state.join("cert.pem"), state.join("key.pem"));
        if !cert.exists() {
            let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
            // The key first: a certificate without its key would be of no use to the next start.
            write(&key, &made.signing_key.serialize_pem())?;
            write(&cert, &made.cert.pem())?;
        }
        Self::load(cert, key)
    }

    /// By which clients know it: SHA-256 of its DER form. Spec: P-2-2.
    pub fn fingerprint(&self) -> String {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let der = current.1.cert.first().map_or(&[][..], |cert| cert);
        format!("sha256:{}", hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref()))
    }

    /// Reads the files again if they are others than before; what cannot be read leaves the one before in use.
    pub fn refresh(&self) -> io::Result<bool> {
        let now = stamp(&self.cert, &self.key);
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == now {
            return Ok(false);
        }
        let read = read(&self.cert, &self.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (now, read);
        Ok(true)
    }

    /// What connections are accepted with.
    pub fn config(self: &Arc<Self>) -> io::Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).1))
    }
}

fn stamp(cert: &Path, key: &Path) -> Stamp {
    [cert, key].map(|path| std::fs::metadata(path).and_then(|found| found.modified()).ok())
}

fn read(cert: &Path, key: &Path) -> io::Result<Arc<CertifiedKey>> {
    let told = |path: &Path, error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| told(cert, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| told(key, &error))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, private, &provider).map_err(|error| told(cert, &error))?;
    Ok(Arc::new(certified))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
