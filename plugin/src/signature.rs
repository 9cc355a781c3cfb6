//! What the commands' signatures share.

use nu_protocol::{Category, Signature, SyntaxShape, Type};

/// Parts of a signature that several commands have.
pub trait ServiceSignature: Sized {
    /// Under "services" in `help commands`.
    fn services(self) -> Self;
    /// Services by name: arguments, or the pipeline.
    fn names(self, description: &str) -> Self;
    /// `--fail`.
    fn fail_flag(self, description: &str) -> Self;
    /// `--quiet`.
    fn quiet_flag(self) -> Self;
    /// Takes names or rows from the pipeline (see `input`), gives `output`.
    fn takes_names(self, output: Type) -> Self;
}

impl ServiceSignature for Signature {
    fn services(self) -> Self {
        self.category(Category::Custom("services".into()))
    }

    fn names(self, description: &str) -> Self {
        self.rest(
            "names",
            // The first that fits counts, and any word is a string.
            SyntaxShape::OneOf(vec![SyntaxShape::List(Box::new(SyntaxShape::String)), SyntaxShape::String]),
            description,
        )
    }

    fn fail_flag(self, description: &str) -> Self {
        self.switch("fail", description, Some('f'))
    }

    fn quiet_flag(self) -> Self {
        self.switch("quiet", "No progress on a terminal.", Some('q'))
    }

    fn takes_names(self, output: Type) -> Self {
        // `any` comes last: inside `each` a command gets each element as input, of whatever type, and its arguments count.
        let inputs =
            [Type::Nothing, Type::String, Type::list(Type::String), Type::record(), Type::table(), Type::Any];
        self.input_output_types(inputs.into_iter().map(|input| (input, output.clone())).collect())
    }
}
