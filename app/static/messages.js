// @ts-check
// What the server tells the board: the types of app/page/messages.py, in JSDoc. Nothing of this is
// sent to a browser; tests/test_messages.py holds both sides alike.

/** @typedef {'semi_activated'|'fully_activated'|'completed'|'cached'} BlockState */

/** @typedef {[number, string, number, number]} CommitRow position, text, confidence, flags */

/** @typedef {[number, string]} TextRow position, text */

/** @typedef {[number, number, BlockState]} BlockRow from, until, state */

/**
 * A lane before its first event.
 * @typedef {object} LaneStart
 * @property {string} name
 * @property {string} model
 * @property {string} decoder
 * @property {number} capacity
 * @property {number} block
 * @property {number} [shared] of the prompt's tokens, with the block that the answer begins in
 * @property {boolean} confidences
 * @property {Record<string, number|string|null>} settings
 * @property {string[]} chat
 */

/**
 * @typedef {object} Start
 * @property {'start'} kind
 * @property {number} speed
 * @property {LaneStart[]} lanes
 * @property {boolean} [recorded]
 * @property {number} [turn]
 */

/**
 * @typedef {object} Step
 * @property {'step'} kind
 * @property {number} lane
 * @property {number} time
 * @property {number} tokens
 * @property {number} forwards
 * @property {CommitRow[]} commits
 * @property {TextRow[]} [texts] of earlier commits, which read so by now
 * @property {BlockRow[]} blocks
 * @property {string|null} finish
 * @property {number} [rejected] of all tokens drafted so far
 */

/**
 * @typedef {object} Clock
 * @property {'clock'} kind
 * @property {number} lane
 * @property {number} time
 * @property {boolean} over
 */

/**
 * @typedef {object} Status
 * @property {'status'} kind
 * @property {string} text
 */

/**
 * @typedef {object} Stopped
 * @property {'stopped'} kind
 */

/**
 * @typedef {object} Metrics
 * @property {number} tokens
 * @property {number} forwards
 * @property {number} seconds
 * @property {number} ttft
 * @property {number} tokens_per_second
 * @property {number} decode_tokens_per_second
 * @property {number} tokens_per_forward
 * @property {number} ms_per_forward
 * @property {string|null} finish_reason
 */

/**
 * @typedef {object} LaneEnd
 * @property {Metrics} metrics
 * @property {string} text
 * @property {string} [spoken]
 * @property {LaneStart} [start]
 * @property {Step[]} [steps]
 */

/**
 * @typedef {object} Link
 * @property {string} [race]
 * @property {string} [refused]
 */

/**
 * @typedef {object} End
 * @property {'end'} kind
 * @property {LaneEnd[]} lanes
 * @property {string} summary
 * @property {string} note
 * @property {Link} link
 * @property {string} [follow_up]
 */

/**
 * @typedef {object} Failure
 * @property {'error'} kind
 * @property {string} text
 * @property {boolean} [over]
 */

/**
 * @typedef {object} Fill
 * @property {'fill'} kind
 * @property {string} [prompt]
 * @property {string} [pair]
 * @property {Record<string, number|string|null>} [settings]
 */

/**
 * @typedef {object} Download
 * @property {'file'} kind
 * @property {string} name
 * @property {string} text
 */

/**
 * @typedef {object} Published
 * @property {'published'} kind
 * @property {string} id
 * @property {string} prompt
 */

/** @typedef {Start|Step|Clock|Status|Stopped|End|Failure|Fill|Download|Published} Message */

/**
 * @typedef {object} Pack
 * @property {string} run
 * @property {number} seq
 * @property {Message[]} messages
 * @property {boolean} opening
 */
