//! The control plane's own certificate: made at the start, renewed in time, and
//! made again when the bundle or what signs changes.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    ca::{Authority, bundle::Roots},
    identity, report,
    serve::{hub::Hub, tls::Tls},
};

/// Retried in this time when signing did not work.
const RETRY: Duration = Duration::from_secs(1);

/// A key, its certificate and these roots.
pub(crate) fn fresh(
    authority: &Authority,
    roots: &Roots,
    trust_domain: &str,
) -> anyhow::Result<Tls> {
    let (issued, key) = authority.own(&identity::control_plane(trust_domain))?;
    Ok(Tls::new(issued.chain, key.into(), roots, trust_domain)?)
}

#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) authority: Arc<Authority>,
    pub(crate) trust_domain: String,
    pub(crate) lifetime: Duration,
}

impl Renewal {
    /// Until the bundle's source is gone.
    pub(crate) async fn keep(
        self,
        mut roots: watch::Receiver<Roots>,
        tls: watch::Sender<Arc<Tls>>,
        hub: Hub,
    ) {
        // At 60 % of its life, as proxies do, with the rest left for trying again.
        let in_time = || Instant::now() + self.lifetime.mul_f64(0.6);
        let mut due = in_time();
        let mut signing = self.authority.changes();
        loop {
            tokio::select! {
                () = sleep_until(due) => {}
                // Another signer: whoever counts on the old root must not find us there.
                Ok(()) = signing.changed() => {}
                changed = roots.changed() => if changed.is_err() { return },
            }
            let now = roots.borrow_and_update().clone();
            let problem = match fresh(&self.authority, &now, &self.trust_domain) {
                Ok(fresh) => {
                    tls.send_replace(Arc::new(fresh));
                    due = in_time();
                    None
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "our own certificate could not be renewed"
                    );
                    due = Instant::now() + RETRY;
                    Some(report::Problem {
                        message: format!(
                            "the control plane's own certificate could not be renewed: {error:#}"
                        ),
                        remedy: "see the error; proxies can't connect once it has expired"
                            .to_owned(),
                        ..report::Problem::default()
                    })
                }
            };
            hub.tell(move |state| state.set_problem("own certificate", problem));
        }
    }
}
