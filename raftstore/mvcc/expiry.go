package mvcc

import "github.com/tidwall/btree"

// expiry orders keys by the moment they expire.
type expiry struct {
	at  int64
	key string
}

// expiries is the set of keys with a time to live, part of the replicated
// state: which keys a given "now" deletes, and in which order, must be the
// same on every member.
type expiries struct{ set *btree.BTreeG[expiry] }

func newExpiries() *expiries {
	less := func(a, b expiry) bool { return a.at < b.at || a.at == b.at && a.key < b.key }
	return &expiries{set: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})}
}

func (x *expiries) add(kv *KeyValue) {
	if kv.ExpiresAt > 0 {
		x.set.Set(expiry{kv.ExpiresAt, kv.Key})
	}
}

func (x *expiries) remove(kv *KeyValue) {
	if kv.ExpiresAt > 0 {
		x.set.Delete(expiry{kv.ExpiresAt, kv.Key})
	}
}

// next is the earliest expiry, 0 if there is none.
func (x *expiries) next() int64 {
	first, _ := x.set.Min()
	return first.at
}

// due returns the first key whose time has come.
func (x *expiries) due(now int64) (string, bool) {
	first, ok := x.set.Min()
	if !ok || first.at > now {
		return "", false
	}
	return first.key, true
}
