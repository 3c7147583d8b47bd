//! TLS in front: a certificate from files, read again when they change.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Context;
use std::time::{Duration, SystemTime};

use tokio::time::interval;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::accept::Socket;
use crate::lifecycle::Lifecycle;

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// A certificate and its key, as the files last had them.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

/// A certificate that cannot be used; `Display` is meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificate {
    /// A file is not there, or holds something else.
    #[error("cannot read {0} as PEM: {1}")]
    Unreadable(PathBuf, rustls::pki_types::pem::Error),
    /// The certificate and the key do not belong together, or are of no known kind.
    #[error("cannot use {0} with {1}: {2}")]
    Unusable(PathBuf, PathBuf, rustls::Error),
}

/// When both files were changed last.
type Stamp = [Option<SystemTime>; 2];

impl Tls {
    /// Reads the certificate chain and the key from two PEM files.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Tls, InvalidCertificate> {
        let current = RwLock::new(read(&certificate, &key)?);
        Ok(Tls { certificate, key, current })
    }

    /// What the next connection is accepted with.
    pub fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(current.clone())
    }

    /// Reads the files again. What was there stays in use if they are no good.
    pub fn reload(&self) -> Result<(), InvalidCertificate> {
        let new = read(&self.certificate, &self.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Reads the files again whenever they change, until `lifecycle` ends.
    pub async fn keep_current(&self, lifecycle: Lifecycle) {
        let mut ticks = interval(RELOAD_INTERVAL);
        let mut loaded = self.stamp().await;
        let mut refused = loaded;
        loop {
            tokio::select! {
                () = lifecycle.ending() => return,
                _ = ticks.tick() => {}
            }
            let stamp = self.stamp().await;
            if stamp == loaded {
                continue;
            }
            match self.reload() {
                Ok(()) => {
                    tracing::info!(certificate = %self.certificate.display(), "certificate read again");
                    loaded = stamp;
                }
                // Of two files one is replaced first; it is tried again every time.
                Err(error) if stamp != refused => {
                    tracing::warn!(%error, "keeping the old certificate");
                    refused = stamp;
                }
                Err(_) => {}
            }
        }
    }

    async fn stamp(&self) -> Stamp {
        let mut stamp = [None; 2];
        for (time, path) in stamp.iter_mut().zip([&self.certificate, &self.key]) {
            *time = tokio::fs::metadata(path).await.and_then(|file| file.modified()).ok();
        }
        stamp
    }
}

impl<T: Socket> Socket for TlsStream<T> {
    fn is_reset(&self, cx: &mut Context<'_>) -> bool {
        self.get_ref().0.is_reset(cx)
    }
}

fn read(certificate: &PathBuf, key: &PathBuf) -> Result<Arc<ServerConfig>, InvalidCertificate> {
    let unreadable = |path: &PathBuf| {
        let path = path.clone();
        |error| InvalidCertificate::Unreadable(path, error)
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(unreadable(certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    let unusable = |error| InvalidCertificate::Unusable(certificate.clone(), key.clone(), error);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
