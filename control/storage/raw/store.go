// Package raw is storage.Interface on raftstore: objects as transformed bytes,
// decoded at every read. It keeps nothing of its own, so each of its answers is
// what the store holds, and every API server of a cluster answers alike.
//
// Reads that promise the newest state go through the store's read index;
// writes are compare-and-put on an object's modification revision, which is
// its resourceVersion.
package raw

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/skiff-run/skiff/raftstore"
)

// Config of the storage of one resource.
type Config struct {
	Store *raftstore.Store
	// Codec encodes objects in the version that is stored.
	Codec runtime.Codec
	// Transformer encrypts, or leaves alone, what is stored.
	Transformer value.Transformer
	// Prefix is before every key, /registry; ResourcePrefix follows it, /pods/.
	Prefix, ResourcePrefix string
	GroupResource          schema.GroupResource
	NewFunc                func() runtime.Object
	Versioner              storage.Versioner
	Decoder                etcd3.Decoder
	// Objects gives decoded objects instead of decoding at every read; nil decodes.
	Objects Objects
	// Indexers give a field's value quickly, to sort objects out of a list before
	// all their fields are computed.
	Indexers storage.IndexerFuncs
}

// Objects keeps what was decoded. The objects are shared: nobody changes them.
type Objects interface {
	Object(ctx context.Context, kv *raftstore.KeyValue) (runtime.Object, error)
}

// Store implements storage.Interface. It is safe for concurrent use.
type Store struct {
	Config
	sizes bool // size estimation is asked for
}

var _ storage.Interface = (*Store)(nil)

// New returns the storage of one resource.
func New(c Config) (*Store, error) {
	if c.ResourcePrefix == "" || c.ResourcePrefix == "/" || c.ResourcePrefix[0] != '/' {
		return nil, fmt.Errorf("resource prefix %q of %s must begin with / and name something", c.ResourcePrefix, c.GroupResource)
	}
	if c.Versioner == nil {
		c.Versioner = storage.APIObjectVersioner{}
	}
	if c.Decoder == nil {
		c.Decoder = etcd3.NewDefaultDecoder(c.Codec, c.Versioner)
	}
	return &Store{Config: c}, nil
}

// authenticated binds stored bytes to their key: an encrypted value cannot be
// moved to another.
type authenticated string

// AuthenticatedData implements value.Context.
func (a authenticated) AuthenticatedData() []byte { return []byte(a) }

// Key is the key or prefix in the store of what the registry calls key.
func (s *Store) Key(key string, recursive bool) (string, error) {
	prepared, err := storage.PrepareKey(s.ResourcePrefix, key, recursive)
	if err != nil {
		return "", err
	}
	return s.Prefix + prepared, nil
}

// Versioner implements storage.Interface.
func (s *Store) Versioner() storage.Versioner { return s.Config.Versioner }

// Current waits until everything committed before the call can be read here.
func (s *Store) Current(ctx context.Context) (int64, error) {
	revision, err := s.Config.Store.ReadIndex(ctx)
	return revision, unavailable(err)
}

// Get implements storage.Interface. The answer is the newest state, which
// satisfies every resourceVersion that has happened.
func (s *Store) Get(ctx context.Context, key string, options storage.GetOptions, out runtime.Object) error {
	key, err := s.Key(key, false)
	if err != nil {
		return err
	}
	if _, err := s.AtLeast(ctx, options.ResourceVersion); err != nil {
		return err
	}
	kv, _, err := s.Config.Store.Get(key, 0)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if kv == nil {
		if options.IgnoreNotFound {
			return runtime.SetZeroValue(out)
		}
		return storage.NewKeyNotFoundError(key, 0)
	}
	if s.Objects == nil {
		return named(key, s.decodeInto(ctx, kv, out))
	}
	object, err := s.Objects.Object(ctx, kv)
	if err != nil {
		return named(key, err)
	}
	if options.ResourceVersion == "" {
		// As with etcd, who asks for the newest state may do with it as he pleases.
		object = object.DeepCopyObject()
	}
	return assign(out, object)
}

// decodeInto decodes a version into an object.
func (s *Store) decodeInto(ctx context.Context, kv *raftstore.KeyValue, out runtime.Object) error {
	data, _, err := s.open(ctx, kv)
	if err != nil {
		return err
	}
	return s.Decoder.Decode(data, out, kv.ModRevision)
}

// Decode decodes a version into a new object.
func (s *Store) Decode(ctx context.Context, kv *raftstore.KeyValue) (runtime.Object, error) {
	object := s.NewFunc()
	if err := s.decodeInto(ctx, kv, object); err != nil {
		return nil, err
	}
	return object, nil
}

// written gives the caller what he wrote, as it is read back.
func (s *Store) written(ctx context.Context, kv *raftstore.KeyValue, data []byte, out runtime.Object) error {
	if s.Objects == nil {
		return s.Decoder.Decode(data, out, kv.ModRevision)
	}
	object, err := s.Objects.Object(ctx, kv)
	if err != nil {
		return err
	}
	return assign(out, object.DeepCopyObject())
}

// assign makes out the same as object, with which it shares what lies deeper
// than the outermost struct.
func assign(out, object runtime.Object) error {
	to, from := reflect.ValueOf(out).Elem(), reflect.ValueOf(object).Elem()
	if !from.Type().AssignableTo(to.Type()) {
		return fmt.Errorf("a stored %T cannot be read into %T", object, out)
	}
	to.Set(from)
	return nil
}

// open decrypts what is stored.
func (s *Store) open(ctx context.Context, kv *raftstore.KeyValue) (data []byte, stale bool, err error) {
	data, stale, err = s.Transformer.TransformFromStorage(ctx, kv.Value, authenticated(kv.Key))
	if err != nil {
		return nil, false, storage.NewInternalError(err)
	}
	return data, stale, nil
}

// AtLeast waits until the state here is as new as a resourceVersion demands
// ("" is the newest there is) and returns its revision. One that has not
// happened yet is refused at once.
func (s *Store) AtLeast(ctx context.Context, minimum string) (int64, error) {
	least, err := s.Config.Versioner.ParseResourceVersion(minimum)
	if err != nil {
		return 0, fmt.Errorf("resourceVersion %q: %w", minimum, err)
	}
	if local := s.Config.Store.Revision(); minimum != "" && least <= uint64(local) && s.Config.Store.Ready() == nil {
		return local, nil
	}
	revision, err := s.Current(ctx)
	if err == nil && least > uint64(revision) {
		err = storage.NewTooLargeResourceVersionError(least, uint64(revision), 0)
	}
	return revision, err
}

// Create implements storage.Interface.
func (s *Store) Create(ctx context.Context, key string, object, out runtime.Object, ttl uint64) error {
	key, err := s.Key(key, false)
	if err != nil {
		return err
	}
	if version, err := s.Config.Versioner.ObjectResourceVersion(object); err == nil && version != 0 {
		return storage.ErrResourceVersionSetOnCreate
	}
	if err := s.Config.Versioner.PrepareObjectForStorage(object); err != nil {
		return fmt.Errorf("prepare %s for storage: %w", key, err)
	}
	data, err := runtime.Encode(s.Codec, object)
	if err != nil {
		return err
	}
	result, err := s.put(ctx, key, data, 0, ttl)
	if err != nil {
		return err
	}
	if !result.Succeeded {
		return storage.NewKeyExistsError(key, 0)
	}
	if out == nil {
		return nil
	}
	return s.written(ctx, result.KV, data, out)
}

// put writes encoded data if the key still has the expected revision.
func (s *Store) put(ctx context.Context, key string, data []byte, expect int64, ttl uint64) (raftstore.PutResult, error) {
	stored, err := s.Transformer.TransformToStorage(ctx, data, authenticated(key))
	if err != nil {
		return raftstore.PutResult{}, storage.NewInternalError(err)
	}
	result, err := s.Config.Store.Put(ctx, raftstore.PutRequest{Key: key, Value: stored, ExpectModRevision: expect, TTLSeconds: int64(ttl)})
	if err != nil {
		return raftstore.PutResult{}, unavailable(err)
	}
	return result, nil
}

// Stats implements storage.Interface.
func (s *Store) Stats(context.Context) (storage.Stats, error) {
	prefix, err := s.Key(s.ResourcePrefix, true)
	if err != nil {
		return storage.Stats{}, err
	}
	stats := storage.Stats{ObjectCount: s.Config.Store.Count(prefix)}
	if s.sizes && stats.ObjectCount > 0 {
		found, err := s.Config.Store.Range(prefix, "", 0, 0)
		if err != nil {
			return storage.Stats{}, fmt.Errorf("measure %s: %w", prefix, err)
		}
		total := 0
		for _, kv := range found.KVs {
			total += len(kv.Value)
		}
		stats.EstimatedAverageObjectSizeBytes = int64(total) / stats.ObjectCount
	}
	return stats, nil
}

// EnableResourceSizeEstimation implements storage.Interface. The values are in
// memory, so the keys need not be listed.
func (s *Store) EnableResourceSizeEstimation(keys storage.KeysFunc) error {
	if keys == nil {
		return errors.New("KeysFunc cannot be nil")
	}
	if s.sizes {
		return errors.New("resourceSizeEstimator already enabled")
	}
	s.sizes = true
	return nil
}

// ReadinessCheck implements storage.Interface.
func (s *Store) ReadinessCheck() error {
	if err := s.Config.Store.Ready(); err != nil {
		return storage.ErrStorageNotReady
	}
	return nil
}

// RequestWatchProgress implements storage.Interface. Watches that ask for
// progress are told at every revision, so nothing remains to be done.
func (s *Store) RequestWatchProgress(context.Context) error { return nil }

// GetCurrentResourceVersion implements storage.Interface.
func (s *Store) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	revision, err := s.Current(ctx)
	if err != nil {
		return 0, err
	}
	if revision < 1 {
		return 0, errors.New("the current resource version must be greater than 0")
	}
	return uint64(revision), nil
}

// CompactRevision implements storage.Interface.
func (s *Store) CompactRevision() int64 { return s.Config.Store.CompactRevision() }

// pointer checks that out can be written to.
func pointer(out runtime.Object) error {
	if _, err := conversion.EnforcePtr(out); err != nil {
		return fmt.Errorf("unable to convert output object to pointer: %w", err)
	}
	return nil
}
