// The interface between the page and what computes pictures.
//
// The page talks to one engine. `engine-server.js` asks the Python server; another engine may run
// an exported network in the browser. An engine has:
//
//   abilities       a Set of what it can do beside pictures, by name: "directions", "gallery",
//                   "files", "bake", "video", "projection", "drag". The page leaves out the
//                   sections that need another one.
//   describe()      a promise of a Network.
//   render(state, {isMoving})
//                   a promise of a Frame, or of null if a newer request took its place. While a
//                   control moves, the frame may be smaller and lossy.
//   call(action, parameters)
//                   a promise of the reply to an action, an object; `reply.image` is a Blob if
//                   there is a picture. Which actions there are depends on the abilities.
//   run(action, parameters, onStep)
//                   as call, for long work: onStep gets each reply. The promise ends with the
//                   last one.
//   stop()          end the long work that runs.
//   send(blob)      a promise of what a file means: {kind, ...}. Ability "files".
//   address(kind, state)
//                   the URL of a file made from a state: "picture.png" or "latents.npz".
//   thumbnail(id)   the URL of a favourite's thumbnail. Ability "gallery".
//   frame(timeline, index)
//                   a promise of a Frame of a video. Ability "video".
//   exported(file)  the URL of an exported video. Ability "video".
//
// Promises fail with an Error whose message is one line for the user.

/**
 * What the page must know about a network.
 * @typedef {object} Network
 * @property {string} name
 * @property {number} height of the pictures, in pixels
 * @property {number} width
 * @property {number} num_ws number of style inputs
 * @property {boolean} has_truncation whether there is a mean of w
 * @property {boolean} has_noise
 * @property {number} num_classes 0 without labels
 * @property {string[]} class_names may be empty
 * @property {number} max_lod 0 unless the network grows
 * @property {number} lod level of detail of the file
 * @property {string} device
 * @property {string[]} direction_sets
 * @property {boolean} has_video whether MP4 and WebM can be written
 */

/**
 * A computed picture.
 * @typedef {object} Frame
 * @property {ImageBitmap} bitmap
 * @property {boolean} isPreview whether it has less resolution than the final picture
 * @property {number} seconds how long the engine computed
 */

export {};
