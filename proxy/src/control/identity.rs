//! Keeps this proxy's certificate fresh.
//!
//! The key is made here and never leaves; the control plane signs a request in
//! exchange for the pod's token, which is read again each time. Renewal begins
//! at 60 % of a certificate's life, with jitter, and is tried for the rest of
//! it; at once when the root of our certificate is removed, or when only a
//! changed pin leads to a control plane. `tls::certs` gets each certificate, the
//! state directory keeps it for a restart.

use std::{sync::Arc, time::Duration};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use weft_proto::v1::{CertifyRequest, identity_client::IdentityClient};

use super::{
    Config,
    dial::{self, Backoff, Dial, Unreachable},
    pin::Pin,
    state::State,
};
use crate::{
    discovery::Health,
    identity::SpiffeId,
    tls::certs::{Bundle, Certificate, Store, Unusable},
};

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("token: {0}")]
    Token(#[from] std::io::Error),
    #[error("request: {0}")]
    Request(#[from] rcgen::Error),
    #[error("control plane: {0}")]
    Unreachable(#[from] Unreachable),
    #[error("control plane: no answer in time")]
    Timeout,
    #[error("answer: {0}")]
    Unusable(#[from] Unusable),
    #[error("answer: the certificate is {0}'s")]
    Stranger(SpiffeId),
}

pub(super) struct Keeper {
    pub(super) config: Arc<Config>,
    pub(super) identity: SpiffeId,
    pub(super) dial: Dial,
    pub(super) certificates: Arc<Store>,
    pub(super) health: Arc<Health>,
    pub(super) pin: Pin,
    pub(super) state: State,
}

impl Keeper {
    /// Takes what an earlier life of this proxy left, if it is still of use.
    pub(super) fn restore(&self) {
        let Some((chain, key)) = self.state.identity() else {
            return;
        };
        let bundle = Bundle::clone(&self.certificates.current().bundle);
        let kept = Certificate::new(chain, key).and_then(|certificate| {
            if certificate.identity == self.identity {
                self.publish(certificate, bundle)
            } else {
                Err(Unusable::NoIdentity)
            }
        });
        match kept {
            Ok(()) => tracing::info!("kept certificate is still valid"),
            Err(error) => tracing::info!(%error, "kept certificate is of no use"),
        }
    }

    /// For as long as the proxy lives.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut got = None;
        loop {
            self.until_due(got).await;
            match Box::pin(self.renew()).await {
                Ok(()) => {
                    backoff.reset();
                    self.health.update(|status| {
                        status.renewals_total += 1;
                        status.renewal_error = None;
                    });
                    tracing::info!(identity = %self.identity, "certificate issued");
                    got = Some(self.certificates.wall().now());
                    // Whatever the authority issues, it is not asked in a tight loop.
                    tokio::time::sleep(SHORTEST_WAIT).await;
                }
                Err(error) => {
                    let wait = backoff.next(self.longest_wait()).max(SHORTEST_WAIT);
                    tracing::warn!(%error, ?wait, "no certificate issued");
                    self.health.update(|status| {
                        status.renewal_failures_total += 1;
                        status.renewal_error = Some(error.to_string());
                    });
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Resolves when a certificate has to be asked for. `got`: when the current
    /// one came, unless an earlier life of this proxy got it.
    async fn until_due(&self, got: Option<Duration>) {
        let mut changes = self.certificates.subscribe();
        // One draw per certificate: a thousand proxies that started together
        // shall not renew together.
        let share = 0.6 + (fastrand::f64() - 0.5) * 0.1;
        loop {
            let due = match &changes.borrow_and_update().certificate {
                // Authorities date back for slow clocks: a life begins when it was got.
                Some(own) => {
                    let begun = got.unwrap_or(own.not_before);
                    begun + own.not_after.saturating_sub(begun).mul_f64(share)
                }
                None => return,
            };
            let left = due.saturating_sub(self.certificates.wall().now());
            if left.is_zero() || !self.certificates.is_acceptable() {
                return;
            }
            // The wall clock may be set; look again now and then.
            let wait = left.min(Duration::from_secs(60));
            tokio::select! {
                () = self.pin.wanted() => return,
                // Both a change and the end of the wait look again.
                _ = timeout(wait, changes.changed()) => {}
            }
        }
    }

    /// So that a short life leaves many tries.
    fn longest_wait(&self) -> Duration {
        let current = self.certificates.current();
        let life = current
            .certificate
            .as_ref()
            .map(|own| own.not_after - own.not_before);
        let most = Duration::from_secs(if life.is_some() { 30 } else { 5 });
        life.map_or(most, |life| (life / 20).clamp(SHORTEST_WAIT, most))
    }

    async fn renew(&self) -> Result<(), Failure> {
        let token = std::fs::read_to_string(&self.config.token_file)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = CertifyRequest {
            certificate_signing_request: params.serialize_request(&key)?.der().to_vec().into(),
            token: token.trim().to_owned(),
        };
        let certify = async {
            let (dial, certificates) = (self.dial.clone(), self.certificates.clone());
            let roots = self.pin.roots(&certificates);
            // The token alone proves who asks: no certificate yet, or an old one.
            let opening = dial::open(dial, certificates, roots, None);
            let (channel, session) = Box::pin(opening).await?;
            let mut client = IdentityClient::new(channel);
            let response = client.certify(request).await.map_err(Unreachable::from)?;
            Ok::<_, Unreachable>((response.into_inner(), session))
        };
        let (response, session) = timeout(dial::DEADLINE, Box::pin(certify))
            .await
            .map_err(|_| Failure::Timeout)??;
        let chain = response
            .chain
            .iter()
            .map(|der| CertificateDer::from(der.to_vec()));
        let chain: Vec<_> = chain.collect();
        let roots = response
            .roots
            .iter()
            .map(|der| CertificateDer::from(der.to_vec()));
        let bundle = Bundle::new(roots.collect())?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let certificate = Certificate::new(chain.clone(), private)?;
        if certificate.identity != self.identity {
            return Err(Failure::Stranger(certificate.identity));
        }
        self.publish(certificate, bundle.clone())?;
        self.state.keep_identity(&chain, &key.serialize_pem());
        self.pin.learned(&bundle, &session);
        Ok(())
    }

    fn publish(&self, certificate: Certificate, bundle: Bundle) -> Result<(), Unusable> {
        let ends = certificate.not_after;
        self.certificates.publish(certificate, bundle)?;
        self.health
            .update(|status| status.certificate_ends = Some(ends));
        Ok(())
    }
}

const SHORTEST_WAIT: Duration = Duration::from_millis(200);
