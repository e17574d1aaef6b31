//! Whom proxies trust, and what makes them trust us: the authority, the bundle
//! of roots, and the control plane's own certificate under them.
//!
//! `app` opens it before anything is served, and then keeps it fresh for as
//! long as it runs: from a state directory, or from a Secret of the cluster.
//! Signing for proxies is `authority`'s.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use tokio::sync::watch;

use crate::{
    ca::{Authority, bundle, token},
    clock::Wall,
    cluster::{
        authority::{Content, Followers, Keeper},
        metrics::Metrics,
        review::Reviews,
    },
    config::Config,
    report,
    runtime::{self, Task},
    serve::{hub::Hub, identity::Tokens, tls::Tls},
};

use super::{
    authority,
    certificate::{self, Renewal},
};

pub(super) struct Trust {
    pub(super) authority: Arc<Authority>,
    pub(super) tokens: Arc<dyn Tokens>,
    pub(super) roots: watch::Receiver<bundle::Roots>,
    pub(super) tls: watch::Receiver<Arc<Tls>>,
    renewal: Renewal,
    source: Source,
    roots_in: watch::Sender<bundle::Roots>,
    tls_in: watch::Sender<Arc<Tls>>,
    metrics: Metrics,
}

/// Where roots are followed.
enum Source {
    /// Further ones in this directory.
    Files(PathBuf),
    Cluster(Box<Keeper>, watch::Sender<Option<Arc<Content>>>),
}

impl Trust {
    /// Of a state directory.
    ///
    /// # Errors
    /// What is wrong with it or the bundle.
    pub(super) fn open(config: &Config, clock: Wall, metrics: &Metrics) -> anyhow::Result<Self> {
        let state = config
            .state_dir
            .as_deref()
            .context("a state directory is needed (--state-dir)")?;
        let authority = Authority::open(
            state,
            &config.trust_domain,
            config.certificate_lifetime,
            clock,
        )?;
        let tokens = authority::tokens(token::Key::read(state)?, clock);
        let extra = config
            .extra_roots
            .clone()
            .unwrap_or_else(|| state.join("roots"));
        let roots = bundle::read(&authority.root(), &extra)?;
        Self::new(
            config,
            authority,
            tokens,
            roots,
            Source::Files(extra),
            metrics,
        )
    }

    /// Of a cluster; also the Secret as it is followed, for who rotates.
    ///
    /// # Errors
    /// What is wrong with the Secret, or that there is none.
    pub(super) async fn open_cluster(
        config: &Config,
        clock: Wall,
        keeper: Keeper,
        metrics: &Metrics,
    ) -> anyhow::Result<(Self, watch::Receiver<Option<Arc<Content>>>)> {
        if config.extra_roots.is_some() {
            anyhow::bail!(
                "further roots belong into ca.crt of the authority's Secret (--extra-roots)"
            );
        }
        let (content, signing) = Box::pin(keeper.open()).await?;
        let authority = Authority::new(
            signing,
            &config.trust_domain,
            config.certificate_lifetime,
            clock,
        );
        let roots = content.in_force(&[]);
        let tokens = Arc::new(Reviews::new(keeper.cluster.clone(), clock));
        let (content, followed) = watch::channel(Some(Arc::new(content)));
        let source = Source::Cluster(Box::new(keeper), content);
        let trust = Self::new(config, authority, tokens, roots, source, metrics)?;
        Ok((trust, followed))
    }

    fn new(
        config: &Config,
        authority: Authority,
        tokens: Arc<dyn Tokens>,
        roots: bundle::Roots,
        source: Source,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let authority = Arc::new(authority);
        let (roots_in, roots) = watch::channel(roots);
        let own = certificate::fresh(&authority, &roots.borrow(), &config.trust_domain)?;
        let (tls_in, tls) = watch::channel(Arc::new(own));
        metrics.trust(&authority.signing(), roots.borrow().len());
        Ok(Self {
            renewal: Renewal {
                authority: authority.clone(),
                trust_domain: config.trust_domain.clone(),
                lifetime: config.certificate_lifetime,
            },
            authority,
            tokens,
            roots,
            tls,
            source,
            roots_in,
            tls_in,
            metrics: metrics.clone(),
        })
    }

    /// Follows the bundle, and renews our certificate in time.
    pub(super) fn keep(self, hub: &Hub) -> [Task; 4] {
        let hand_on = hand_on(self.roots.clone(), hub.clone());
        let tell = tell_signer(self.authority.clone(), hub.clone());
        let renew = self.renewal.keep(self.roots, self.tls_in, hub.clone());
        let follow = match self.source {
            Source::Files(extra) => runtime::spawn(follow_files(
                self.authority,
                extra,
                self.roots_in,
                hub.clone(),
                self.metrics,
            )),
            Source::Cluster(keeper, content) => {
                let followers = Followers {
                    authority: self.authority,
                    roots: self.roots_in,
                    content,
                    metrics: self.metrics,
                };
                runtime::spawn(follow_secret(*keeper, followers, hub.clone()))
            }
        };
        [
            runtime::spawn(hand_on),
            runtime::spawn(tell),
            runtime::spawn(renew),
            follow,
        ]
    }
}

/// Hands new roots to the proxies; our own certificate follows them by itself.
async fn hand_on(mut roots: watch::Receiver<bundle::Roots>, hub: Hub) {
    while roots.changed().await.is_ok() {
        let fresh = roots.borrow_and_update().clone();
        tracing::info!(roots = fresh.len(), "the trust bundle has changed");
        if hub.ask(move |state| state.set_roots(fresh)).await.is_err() {
            return;
        }
    }
}

/// So that it is known in which root leaves end from now on.
async fn tell_signer(authority: Arc<Authority>, hub: Hub) {
    let mut signing = authority.changes();
    loop {
        let root = signing.borrow_and_update().fingerprint();
        let told = hub.ask(move |state| state.set_signer(root)).await;
        if told.is_err() || signing.changed().await.is_err() {
            return;
        }
    }
}

async fn follow_files(
    authority: Arc<Authority>,
    extra: PathBuf,
    roots: watch::Sender<bundle::Roots>,
    hub: Hub,
    metrics: Metrics,
) {
    let from = extra.display().to_string();
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
        hub.tell(move |state| state.set_problem("trust bundle", problem));
    };
    let mut changed = roots.subscribe();
    let measure = async {
        while changed.changed().await.is_ok() {
            let roots = changed.borrow_and_update().len();
            metrics.trust(&authority.signing(), roots);
        }
    };
    tokio::join!(
        bundle::follow(authority.root(), extra, roots, report),
        measure
    );
}

async fn follow_secret(keeper: Keeper, followers: Followers, hub: Hub) {
    let object = format!("Secret {}/{}", keeper.cluster.namespace, keeper.secret);
    let follow = keeper.follow(followers, move |trouble| {
        let problem = trouble.map(|trouble| report::Problem {
            object: object.clone(),
            message: trouble.to_string(),
            remedy: trouble.remedy().to_owned(),
            ..report::Problem::default()
        });
        hub.tell(move |state| state.set_problem("authority", problem));
    });
    Box::pin(follow).await;
}
