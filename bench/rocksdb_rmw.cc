/*
 * rocksdb_rmw.cc - read-modify-write in RocksDB, which bench/run's figure "rocksdb" compares with.
 *
 * rocksdb_rmw FOLDER KEYS OPERATIONS MEGABYTES: writes KEYS keys of 16 bytes with values of 24 bytes, then reads, changes
 * and writes OPERATIONS values at random, without a WAL; prints operations/s.  Block cache, write buffers, indexes and
 * filters share MEGABYTES.
 */
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/write_buffer_manager.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

static void
check(const rocksdb::Status &status)
{
	if (!status.ok())
	{
		std::fprintf(stderr, "rocksdb_rmw: ERROR: %s\n", status.ToString().c_str());
		std::exit(1);
	}
}

/* splitmix64: neighbouring numbers give keys that look random */
static uint64_t
mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

struct Key
{
	uint64_t	a;
	uint64_t	b;
};

struct Value
{
	int64_t		count;
	int64_t		sum;
	int64_t		rows;
};

static rocksdb::Slice
as_slice(const void *data, size_t size)
{
	return rocksdb::Slice(static_cast<const char *>(data), size);
}

static rocksdb::DB *
open_database(const std::string &folder, size_t bytes)
{
	rocksdb::BlockBasedTableOptions table;
	rocksdb::Options options;
	rocksdb::DB *db;

	table.block_cache = rocksdb::NewLRUCache(bytes);
	table.cache_index_and_filter_blocks = true;
	table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
	table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
	options.create_if_missing = true;
	options.write_buffer_size = bytes / 8;
	options.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(bytes / 4, table.block_cache);
	options.compression = rocksdb::kNoCompression;
	options.max_background_jobs = 2;
	options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
	check(rocksdb::DB::Open(options, folder, &db));
	return db;
}

int
main(int argc, char **argv)
{
	if (argc != 5)
	{
		std::fprintf(stderr, "usage: rocksdb_rmw FOLDER KEYS OPERATIONS MEGABYTES\n");
		return 2;
	}
	const uint64_t keys = std::strtoull(argv[2], nullptr, 10);
	const uint64_t operations = std::strtoull(argv[3], nullptr, 10);
	std::unique_ptr<rocksdb::DB> db(open_database(argv[1], std::strtoull(argv[4], nullptr, 10) << 20));
	rocksdb::WriteOptions no_wal;
	std::string found;

	no_wal.disableWAL = true;
	for (uint64_t i = 0; i < keys; i++)
	{
		Key			key = {mix(i), i % 1000};
		Value		value = {1, static_cast<int64_t>(i % 100), 1};

		check(db->Put(no_wal, as_slice(&key, sizeof key), as_slice(&value, sizeof value)));
	}
	check(db->Flush(rocksdb::FlushOptions()));

	auto		began = std::chrono::steady_clock::now();

	for (uint64_t i = 0; i < operations; i++)
	{
		uint64_t	number = mix(i ^ 0x5bd1e995) % keys;
		Key			key = {mix(number), number % 1000};
		Value		value;

		check(db->Get(rocksdb::ReadOptions(), as_slice(&key, sizeof key), &found));
		std::memcpy(&value, found.data(), sizeof value);
		value.count++;
		value.sum += i % 100;
		value.rows++;
		check(db->Put(no_wal, as_slice(&key, sizeof key), as_slice(&value, sizeof value)));
	}
	std::printf("%.0f\n", operations / std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
	check(db->Close());
	return 0;
}
