//! Demo models by model class.

/// Model classes of traces, each with the demo model that serves it.
pub const MODELS: [(&str, &str); 3] = [("chat", "demo-chat"), ("large", "demo-large"), ("small", "demo-small")];

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    #[test]
    fn every_class_has_a_demo_model() {
        let models = Settings::demo().unwrap().models;
        for (class, name) in super::MODELS {
            assert!(models.iter().any(|model| model.name == name), "{class} has no model {name}");
        }
    }
}
