//! The demo itself.

use tests::scene::Scene;
use tests::world::unique;

#[test]
fn the_scene_plays_as_told() {
    let scene = Scene::play(&unique());
    assert!(scene.succeeded(), "{}", scene.table());
}
