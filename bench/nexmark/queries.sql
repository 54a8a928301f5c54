-- Nexmark's queries over the stream "bid" (gen.sql), one after another: "-- qN: what it asks", then its SELECT.  Those with windows leave out
-- rows with a negative event_no: one of them closes the last windows.  q6, q9, q10, q13, q20 and q23 are joins or writers of
-- files; q3, q4 and q8 join streams.

-- q0: pass through
SELECT auction, bidder, price, date_time, extra FROM bid

-- q1: prices in another currency
SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM bid

-- q2: bids on some auctions
SELECT auction, price FROM bid WHERE mod(auction, 123) = 0

-- q5: the auctions with the most bids of the last 10 seconds, every 2 seconds
SELECT auction, num, window_start AS starttime, window_end AS endtime
FROM (SELECT c.*, max(num) OVER (PARTITION BY window_start) AS most
	FROM (SELECT auction, w.window_start, w.window_end, count(*) AS num
		FROM bid, stream_ckpt.hop(date_time, '2 seconds', '10 seconds') w WHERE event_no >= 0 GROUP BY 1, 2, 3) c) x
WHERE num >= most

-- q7: the highest bids of each 10 seconds
SELECT auction, price, bidder, date_time, extra
FROM (SELECT auction, price, bidder, date_time, extra, rank() OVER (PARTITION BY w.window_start ORDER BY price DESC) AS rank
	FROM bid, stream_ckpt.tumble(date_time, '10 seconds') w WHERE event_no >= 0) x
WHERE rank = 1

-- q11: bids of each bidder in a session
SELECT bidder, count(*) AS bid_count, w.window_start AS starttime, w.window_end AS endtime
FROM bid, stream_ckpt.session(date_time, '10 seconds') w WHERE event_no >= 0 GROUP BY bidder, w.window_start, w.window_end

-- q12: bids of each bidder in 10 seconds
SELECT bidder, count(*) AS bid_count, w.window_start AS starttime, w.window_end AS endtime
FROM bid, stream_ckpt.tumble(date_time, '10 seconds') w WHERE event_no >= 0 GROUP BY bidder, w.window_start, w.window_end

-- q14: calculation and filter
SELECT auction, bidder, 0.908 * price AS price,
	CASE WHEN extract(hour FROM date_time) BETWEEN 8 AND 18 THEN 'dayTime'
		WHEN extract(hour FROM date_time) <= 6 OR extract(hour FROM date_time) >= 20 THEN 'nightTime' ELSE 'otherTime' END AS bidtimetype,
	date_time, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000

-- q15: bidding statistics of each day
SELECT to_char(date_time, 'YYYY-MM-DD') AS day,
	count(*) AS total_bids,
	count(*) FILTER (WHERE price < 10000) AS rank1_bids,
	count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
	count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
	count(DISTINCT bidder) AS total_bidders,
	count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
	count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders,
	count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders,
	count(DISTINCT auction) AS total_auctions,
	count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions,
	count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions,
	count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions
FROM bid GROUP BY 1

-- q16: statistics of each channel and day
SELECT channel, to_char(date_time, 'YYYY-MM-DD') AS day, max(to_char(date_time, 'HH24:MI')) AS minute,
	count(*) AS total_bids,
	count(*) FILTER (WHERE price < 10000) AS rank1_bids,
	count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
	count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
	count(DISTINCT bidder) AS total_bidders,
	count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
	count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders,
	count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders,
	count(DISTINCT auction) AS total_auctions,
	count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions,
	count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions,
	count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions
FROM bid GROUP BY 1, 2

-- q17: statistics of each auction and day
SELECT auction, to_char(date_time, 'YYYY-MM-DD') AS day,
	count(*) AS total_bids,
	count(*) FILTER (WHERE price < 10000) AS rank1_bids,
	count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
	count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
	min(price) AS min_price, max(price) AS max_price, trunc(avg(price))::bigint AS avg_price, sum(price) AS sum_price
FROM bid GROUP BY 1, 2

-- q18: the last bid of each bidder on each auction
SELECT auction, bidder, price, channel, url, date_time, extra
FROM (SELECT auction, bidder, price, channel, url, date_time, extra,
		row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC) AS rn
	FROM bid) x
WHERE rn <= 1

-- q19: the ten highest bids of each auction
SELECT auction, bidder, price, channel, url, date_time, extra, rank_number
FROM (SELECT auction, bidder, price, channel, url, date_time, extra,
		row_number() OVER (PARTITION BY auction ORDER BY price DESC, event_no) AS rank_number
	FROM bid) x
WHERE rank_number <= 10

-- q21: the channel's number, from a list or from its URL
SELECT auction, bidder, price, channel,
	CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
		ELSE (regexp_match(url, '(&|^)channel_id=([^&]*)'))[2] END AS channel_id
FROM bid
WHERE (regexp_match(url, '(&|^)channel_id=([^&]*)'))[2] IS NOT NULL OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')

-- q22: the folders of a URL
SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
FROM bid
