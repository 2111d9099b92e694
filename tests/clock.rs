//! Clock skew: a machine with a wrong clock charges nothing and reports the error.

use crate::support::{Deployment, one_tenant};

#[tokio::test]
async fn no_request_is_admitted_while_the_clock_is_skewed() {
    for (limits, broker_ms, stand_ins_ms) in [("{ requests_per_minute = 10 }", 5_000, 0), ("{}", 0, 5_000)] {
        let deployment = Deployment::start(&one_tenant(limits)).await;
        assert_eq!(deployment.chat("t", 5, 5).await.status(), 200);
        let before = deployment.simulator().await["total"]["requests"].clone();
        deployment.world.app.clock.advance(spillway::units::Millis::from_ms(broker_ms));
        deployment.world.stand_in_clock.advance(stand_ins_ms);
        // The skew is detected when the registry is read again.
        deployment.world.app.registry.forget("t");
        deployment.world.app.registry.forget_models();
        let refused = deployment.chat("t", 5, 5).await;
        assert_eq!(
            (refused.status(), &refused.headers()["retry-after"]),
            (503.try_into().expect("a status"), &"1".parse().expect("text"))
        );
        let message = refused.text().await.expect("a body");
        assert!(message.contains("nothing was charged"), "{message}");
        assert_eq!(deployment.simulator().await["total"]["requests"], before);

        deployment.world.app.clock.advance(spillway::units::Millis::from_ms(stand_ins_ms));
        deployment.world.stand_in_clock.advance(broker_ms);
        deployment.world.app.registry.forget("t");
        deployment.world.app.registry.forget_models();
        assert_eq!(deployment.chat("t", 5, 5).await.status(), 200);
    }
}
