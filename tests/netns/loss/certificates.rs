//! Certificates are renewed, roots are added, while requests go on.

use std::{fs, time::Duration};

use weft_tests::{
    traffic::{self, Load},
    wait, world,
};

use super::{Shop, metric};

#[test]
fn certificates_of_ten_seconds_are_rotated_twice_under_load_without_an_error() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new(&[("WEFT_CERTIFICATE_LIFETIME", "10s")]);
    let (tally, ()) = traffic::during(&shop.client, &Load::new(shop.web()), || {
        let renewals = |pod: &world::Pod, most: f64| {
            let enough = wait::within(Duration::from_secs(25), || {
                (pod.metrics().sum("weft_control_renewals_total", &[]) >= most).then_some(())
            });
            assert!(enough.is_some(), "{} was not renewed", pod.name());
        };
        // The first is no rotation.
        renewals(&shop.client, 3.0);
        renewals(&shop.pods[0], 3.0);
        renewals(&shop.pods[1], 3.0);
        // A further root, in the middle of it.
        let key = rcgen::KeyPair::generate().unwrap();
        let mut root = rcgen::CertificateParams::default();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = root.self_signed(&key).unwrap();
        let roots = shop.world.directory().join("state").join("roots");
        fs::create_dir_all(&roots).unwrap();
        let unfinished = roots.with_extension("unfinished");
        fs::write(&unfinished, root.pem()).unwrap();
        fs::rename(unfinished, roots.join("second.pem")).unwrap();
        metric(&shop.client, "weft_control_trusted_roots", |it| it == 2.0);
        metric(&shop.pods[0], "weft_control_trusted_roots", |it| it == 2.0);
        let requests = shop.applications[0].requests();
        wait::until("requests after that", || {
            (shop.applications[0].requests() > requests + 50).then_some(())
        });
        // Taken away again: nobody's certificate hangs on it.
        fs::remove_file(roots.join("second.pem")).unwrap();
        metric(&shop.client, "weft_control_trusted_roots", |it| it == 1.0);
    });
    tally.assert_flawless();
}
