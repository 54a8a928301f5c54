/* stream_ckpt 0.2.0 to 0.3.0 */

\echo Use "ALTER EXTENSION stream_ckpt UPDATE TO '0.3.0'" to load this file. \quit

-- time: windows that are over whatever the watermark says (microseconds as max_event_time; NULL: none)
ALTER TABLE stream_ckpt.checkpoint_offset ADD COLUMN closed_until timestamptz;
