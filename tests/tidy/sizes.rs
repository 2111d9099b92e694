//! Small files and small functions.

use syn::{ImplItemFn, ItemFn, spanned::Spanned, visit::Visit};

use super::source::{Source, assert_none, product_items, rust_files};

/// The most lines of a product file, its test module included.
const MAX_FILE_LINES: usize = 400;

/// The most lines of a function.
const MAX_FUNCTION_LINES: usize = 60;

const FOLDERS: [&str; 5] =
    ["shared/spillway/src", "shared/stand-ins/src", "shared/command/src", "shared/bench/src", "functions"];

#[derive(Default)]
struct Functions(Vec<(String, usize)>);

impl Functions {
    fn add(&mut self, name: &syn::Ident, whole: proc_macro2::Span) {
        self.0.push((name.to_string(), whole.end().line + 1 - name.span().start().line));
    }
}

impl Visit<'_> for Functions {
    fn visit_item_fn(&mut self, function: &ItemFn) {
        self.add(&function.sig.ident, function.span());
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &ImplItemFn) {
        self.add(&function.sig.ident, function.span());
        syn::visit::visit_impl_item_fn(self, function);
    }
}

pub fn violations(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    let lines = source.text.lines().count();
    if lines > MAX_FILE_LINES {
        violations.push(format!("{} has {lines} lines", source.path));
    }
    let mut functions = Functions::default();
    for item in product_items(source.parse()) {
        functions.visit_item(&item);
    }
    for (name, lines) in functions.0.into_iter().filter(|(_, lines)| *lines > MAX_FUNCTION_LINES) {
        violations.push(format!("{}: {name} has {lines} lines", source.path));
    }
    violations
}

#[test]
fn files_and_functions_are_small() {
    let sources = FOLDERS.into_iter().flat_map(rust_files);
    let violations: Vec<String> = sources.flat_map(|source| violations(&source)).collect();
    assert_none("Sizes:", &violations);
}

#[test]
fn a_planted_long_file_and_a_planted_long_function_are_found() {
    let statements = |count: usize| "    f();\n".repeat(count);
    let function = |count| Source::planted("a.rs", &format!("fn f() {{\n{}}}\n", statements(count)));
    assert_eq!(violations(&function(MAX_FUNCTION_LINES - 2)), Vec::<String>::new());
    assert_eq!(violations(&function(MAX_FUNCTION_LINES - 1)).len(), 1);
    assert_eq!(violations(&Source::planted("a.rs", &"\n".repeat(MAX_FILE_LINES + 1))).len(), 1);
}
