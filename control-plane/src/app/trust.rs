//! Whom proxies trust, and what makes them trust us: the authority, the bundle
//! of roots, and the control plane's own certificate under them.
//!
//! `app` opens it before anything is served, and then keeps it fresh for as
//! long as it runs. Signing for proxies is `authority`'s.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use crate::{
    ca::{Authority, bundle},
    clock::Wall,
    config::Config,
    report,
    runtime::{self, Task},
    serve::{hub::Hub, tls::Tls},
};

use super::certificate::{self, Renewal};

pub(super) struct Trust {
    pub(super) authority: Arc<Authority>,
    pub(super) roots: watch::Receiver<bundle::Roots>,
    pub(super) tls: watch::Receiver<Arc<Tls>>,
    renewal: Renewal,
    /// Where further roots are read from.
    extra: PathBuf,
    roots_in: watch::Sender<bundle::Roots>,
    tls_in: watch::Sender<Arc<Tls>>,
}

impl Trust {
    /// # Errors
    /// What is wrong with the state directory or the bundle.
    pub(super) fn open(config: &Config, clock: Wall) -> anyhow::Result<Self> {
        let authority = Arc::new(Authority::open(
            &config.state_dir,
            &config.trust_domain,
            config.certificate_lifetime,
            clock,
        )?);
        let extra = config
            .extra_roots
            .clone()
            .unwrap_or_else(|| config.state_dir.join("roots"));
        let (roots_in, roots) = watch::channel(bundle::read(authority.root(), &extra)?);
        let own = certificate::fresh(&authority, &roots.borrow(), &config.trust_domain)?;
        let (tls_in, tls) = watch::channel(Arc::new(own));
        Ok(Self {
            renewal: Renewal {
                authority: authority.clone(),
                trust_domain: config.trust_domain.clone(),
                lifetime: config.certificate_lifetime,
            },
            authority,
            roots,
            tls,
            extra,
            roots_in,
            tls_in,
        })
    }

    /// Follows the bundle, and renews our certificate in time.
    pub(super) fn keep(self, hub: &Hub) -> [Task; 2] {
        let follow = follow_roots(self.authority, self.extra, self.roots_in, hub.clone());
        let renew = self.renewal.keep(self.roots, self.tls_in, hub.clone());
        [runtime::spawn(follow), runtime::spawn(renew)]
    }
}

/// Hands new roots to the proxies; our own certificate follows by `roots` too.
async fn follow_roots(
    authority: Arc<Authority>,
    extra: PathBuf,
    roots: watch::Sender<bundle::Roots>,
    hub: Hub,
) {
    let mut changed = roots.subscribe();
    let from = extra.display().to_string();
    let told = hub.clone();
    let report = move |error: Option<String>| {
        if let Some(error) = &error {
            tracing::warn!(
                error,
                "the trust bundle can't be read; the last good one stays in force"
            );
        }
        let problem = error.map(|message| report::Problem {
            file: from.clone(),
            message,
            remedy: "give one or more CA certificates in PEM".to_owned(),
            ..report::Problem::default()
        });
        told.tell(move |state| state.set_problem("trust bundle", problem));
    };
    let follow = bundle::follow(authority.root().clone(), extra, roots, report);
    let hand_on = async {
        while changed.changed().await.is_ok() {
            let fresh = changed.borrow_and_update().clone();
            tracing::info!(roots = fresh.len(), "the trust bundle has changed");
            if hub.ask(move |state| state.set_roots(fresh)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(follow, hand_on);
}
