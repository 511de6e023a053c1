//! What an expression says of an object that the object's kind does not have. It decides nothing: kinds change, and one
//! expression may be about several. But whoever wrote it will want to know.

use claw_schemas::schema::Place;
use kube_cel::cel::parser::Expression;

use super::{
    parse,
    program::Names,
    types::{self, Ty},
};

/// Parsed expressions that share variables.
pub(crate) struct Sketch {
    variables: Vec<(String, Expression)>,
}

impl Sketch {
    /// With these variables: name and text. One that does not parse is none.
    pub fn new<'t>(variables: impl Iterator<Item = (&'t str, &'t str)>) -> Self {
        let parsed = |(name, text): (&str, &str)| Some((name.to_owned(), parse::parse(text).ok()?));
        Self { variables: variables.filter_map(parsed).collect() }
    }

    /// What is wrong with an expression if objects and parameters are of these schemas.
    pub fn fault(&self, text: &str, object: Place<'_>, params: Option<Place<'_>>) -> Option<String> {
        let expression = parse::parse(text).ok()?;
        let mut scope = Names::of_policies(true).scope();
        scope.set("object", types::at(object));
        scope.set("oldObject", types::at(object));
        scope.set("params", params.map_or(Ty::Any, types::at));
        for (name, variable) in &self.variables {
            let ty = types::type_in(variable, &mut scope).unwrap_or(Ty::Any);
            scope.add_variable(name, ty);
        }
        types::type_in(&expression, &mut scope).err()
    }
}
