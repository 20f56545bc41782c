//! The commands of the README work, in their order.

use crate::{
    reader::Reader,
    steps::{Step, steps},
};

#[test]
fn every_command_of_the_readme_works() {
    let readme = crate::read("README.md");
    let steps = steps(&readme);
    assert!(steps.iter().any(|step| matches!(step, Step::Serve(_))), "the README does not start the service");
    assert!(steps.iter().filter(|step| matches!(step, Step::Run(_))).count() >= 3, "{steps:?}");
    let said = Reader::in_checkout().follow(&readme);
    assert!(said.iter().any(|answer| answer.contains("\"balance\"")), "{said:?}");
}
