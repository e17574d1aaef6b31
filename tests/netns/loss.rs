//! What the mesh loses must not cost traffic: its control plane, certificates,
//! packets, connections that servers close, pods that are replaced.

mod certificates;
mod control_plane;
mod far;
mod keep_alive;
mod packets;
mod rolling;

use std::{net::SocketAddr, time::Duration};

use weft_tests::{
    traffic::{Answer, Application},
    wait,
    world::{self, Pod, World},
};

const PORT: u16 = 8080;

/// Service shop/web of two pods whose applications say their pod's number.
struct Shop {
    client: Pod,
    applications: Vec<Application>,
    pods: Vec<Pod>,
    world: World,
}

impl Shop {
    fn new(knobs: &[(&str, &str)]) -> Self {
        Self::of(World::with(
            true,
            &world::service("shop/web", &[PORT]),
            knobs,
        ))
    }

    /// In a world that has the service.
    fn of(world: World) -> Self {
        let (mut pods, mut applications) = (Vec::new(), Vec::new());
        for number in 0..2_u8 {
            let pod = world.idle(&format!("shop/web-{number}"));
            let answer = move |_: &_| Answer::ok(number.to_string());
            applications.push(Application::start(pod.listen(PORT), answer));
            pods.push(pod);
        }
        let client = world.idle("shop/client-0");
        Self {
            client,
            applications,
            pods,
            world,
        }
    }

    fn web(&self) -> SocketAddr {
        SocketAddr::new(self.client.resolve("web"), PORT)
    }
}

/// Until a sum of a pod's metric fits.
#[track_caller]
fn metric(pod: &Pod, name: &str, fits: impl Fn(f64) -> bool) -> f64 {
    wait::until(&format!("{name} of {}", pod.name()), || {
        Some(pod.metrics().sum(name, &[])).filter(|sum| fits(*sum))
    })
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
