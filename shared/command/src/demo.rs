//! The demo's models, by the model classes of a trace.

/// The demo model that serves each model class.
pub const MODELS: [(&str, &str); 3] = [("chat", "demo-chat"), ("large", "demo-large"), ("small", "demo-small")];

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    #[test]
    fn every_class_has_a_model_that_the_demo_starts_with() {
        let models = Settings::demo().unwrap().models;
        for (class, name) in super::MODELS {
            assert!(models.iter().any(|model| model.name == name), "{class} has no model {name}");
        }
    }
}
