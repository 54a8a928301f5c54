/* stream_ckpt 0.1.0 to 0.2.0 */

\echo Use "ALTER EXTENSION stream_ckpt UPDATE TO '0.2.0'" to load this file. \quit

--
-- Catalogs: what users asked for.
--
ALTER TABLE stream_ckpt.query ADD COLUMN paused boolean NOT NULL DEFAULT false;
CREATE INDEX query_source_idx ON stream_ckpt.query (source);
