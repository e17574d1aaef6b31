//! What the demo shows, in turn. One file per step; each leaves the shop as the
//! next one wants it.

use std::time::Duration;

use super::{board::Board, finding::Finding, shop::Shop};

mod access;
mod breaker;
mod canary;
mod certificates;
mod control_plane;
mod load;
mod opening;
mod retries;
mod sight;
mod traffic;

/// For a change of a file to be with every proxy.
const EDIT_LIMIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Traffic,
    Opening,
    Canary,
    Breaker,
    Retries,
    Access,
    ControlPlane,
    Certificates,
}

impl Step {
    pub(crate) const ALL: [Self; 8] = [
        Self::Traffic,
        Self::Opening,
        Self::Canary,
        Self::Breaker,
        Self::Retries,
        Self::Access,
        Self::ControlPlane,
        Self::Certificates,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Opening => "shop",
            Self::Canary => "canary",
            Self::Breaker => "breaker",
            Self::Retries => "retries",
            Self::Access => "access",
            Self::ControlPlane => "control-plane",
            Self::Certificates => "certificates",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Traffic => "bytes on the wire, without the mesh and with it",
            Self::Opening => "every service, each with a sidecar of its own",
            Self::Canary => "90/10 becomes 50/50 by editing a file",
            Self::Breaker => "a pod that fails is ejected, and comes back",
            Self::Retries => "one failure in ten, and no caller sees it",
            Self::Access => "a caller who may not, and why",
            Self::ControlPlane => "the control plane is killed under load",
            Self::Certificates => "every certificate is renewed under load",
        }
    }

    /// # Errors
    /// When the shop is not in a state to go on with.
    pub(crate) async fn show(self, shop: &mut Shop, board: &Board) -> anyhow::Result<Finding> {
        match self {
            Self::Traffic => traffic::show(shop, board).await,
            Self::Opening => opening::show(shop, board).await,
            Self::Canary => canary::show(shop, board).await,
            Self::Breaker => breaker::show(shop, board).await,
            Self::Retries => retries::show(shop, board).await,
            Self::Access => access::show(shop, board).await,
            Self::ControlPlane => control_plane::show(shop, board).await,
            Self::Certificates => certificates::show(shop, board).await,
        }
    }
}
