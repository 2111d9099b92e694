//! A machine whose clock is off charges nothing, and says so.

use crate::support::{Deployment, one_tenant};

#[tokio::test]
async fn a_clock_that_is_off_admits_nothing_until_it_is_right_again() {
    for (limits, ours_ms, theirs_ms) in [("{ requests_per_minute = 10 }", 5_000, 0), ("{}", 0, 5_000)] {
        let deployment = Deployment::start(&one_tenant(limits)).await;
        assert_eq!(deployment.chat("t", 5, 5).await.status(), 200);
        let before = deployment.simulator().await["total"]["requests"].clone();
        deployment.world.app.clock.advance(spillway::units::Millis::from_ms(ours_ms));
        deployment.world.stand_in_clock.advance(theirs_ms);
        // The registry is read again after two seconds at most, and that is when it shows.
        deployment.world.app.registry.forget("t");
        deployment.world.app.registry.forget_models();
        let off = deployment.chat("t", 5, 5).await;
        assert_eq!(
            (off.status(), &off.headers()["retry-after"]),
            (503.try_into().expect("a status"), &"1".parse().expect("text"))
        );
        let told = off.text().await.expect("a body");
        assert!(told.contains("nothing was charged"), "{told}");
        assert_eq!(deployment.simulator().await["total"]["requests"], before);

        deployment.world.app.clock.advance(spillway::units::Millis::from_ms(theirs_ms));
        deployment.world.stand_in_clock.advance(ours_ms);
        deployment.world.app.registry.forget("t");
        deployment.world.app.registry.forget_models();
        assert_eq!(deployment.chat("t", 5, 5).await.status(), 200);
    }
}
