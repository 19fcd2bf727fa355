package raw

import (
	"bytes"
	"context"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"github.com/skiff-run/skiff/raftstore"
)

// state is what an update or deletion starts from.
type state struct {
	object   runtime.Object
	data     []byte // encoded, as it is or would be stored
	revision int64  // 0: the key does not exist
	stale    bool   // stored under an old encryption key
	// fresh says that it was read from the store and not handed in as a hint.
	fresh bool
}

// attempt is an update or deletion in progress: it starts from a hint when
// there is one, and falls back to what is really stored when the hint leads to
// an error or a conflict.
type attempt struct {
	store *Store
	key   string
	// typed is an empty object of the right type, for decoding into.
	typed          runtime.Object
	ignoreNotFound bool
	// undecodable accepts data that cannot be read, to delete it.
	undecodable bool
	state       *state
}

// newAttempt begins with the hint, which belongs to it from then on, or with
// what is stored.
func (s *Store) newAttempt(ctx context.Context, key string, typed, hint runtime.Object, ignoreNotFound, undecodable bool) (*attempt, error) {
	a := &attempt{store: s, key: key, typed: typed, ignoreNotFound: ignoreNotFound, undecodable: undecodable}
	if undecodable {
		return a, a.refresh(ctx)
	}
	if s.Objects != nil {
		// What is known here is newer than any hint and costs no question to the
		// leader: the write compares revisions anyway.
		if a.peek(ctx) {
			return a, nil
		}
	}
	if hint == nil || s.Objects != nil {
		return a, a.refresh(ctx)
	}
	revision, err := s.Config.Versioner.ObjectResourceVersion(hint)
	if err != nil {
		return nil, fmt.Errorf("couldn't get resource version: %w", err)
	}
	a.state = &state{object: hint, revision: int64(revision)}
	if a.state.data, err = s.encode(hint); err != nil {
		return nil, err
	}
	if err := s.Config.Versioner.UpdateObject(hint, revision); err != nil {
		return nil, fmt.Errorf("restore resourceVersion of %s: %w", key, err)
	}
	return a, nil
}

// encode gives the bytes of an object as they are stored: without
// resourceVersion, which is the revision they are stored at.
func (s *Store) encode(object runtime.Object) ([]byte, error) {
	if err := s.Config.Versioner.PrepareObjectForStorage(object); err != nil {
		return nil, fmt.Errorf("prepare object for storage: %w", err)
	}
	return runtime.Encode(s.Codec, object)
}

// peek starts from what is known here, which may be old. It is false if nothing
// can be found or read here.
func (a *attempt) peek(ctx context.Context) bool {
	if a.store.ReadinessCheck() != nil {
		return false
	}
	kv, _, err := a.store.Config.Store.Get(a.key, 0)
	if err != nil || kv == nil || a.load(ctx, kv) != nil {
		return false
	}
	a.state.fresh = false
	return true
}

// refresh reads the newest state.
func (a *attempt) refresh(ctx context.Context) error {
	if _, err := a.store.Current(ctx); err != nil {
		return err
	}
	kv, _, err := a.store.Config.Store.Get(a.key, 0)
	if err != nil {
		return fmt.Errorf("read %s: %w", a.key, err)
	}
	return a.load(ctx, kv)
}

// load makes the state from what is stored, nil for nothing.
func (a *attempt) load(ctx context.Context, kv *raftstore.KeyValue) error {
	object := reflect.New(reflect.TypeOf(a.typed).Elem()).Interface().(runtime.Object)
	if kv == nil {
		if !a.ignoreNotFound {
			return storage.NewKeyNotFoundError(a.key, 0)
		}
		if err := runtime.SetZeroValue(object); err != nil {
			return err
		}
		a.state = &state{object: object, fresh: true}
		return nil
	}
	data, stale, err := a.store.open(ctx, kv)
	switch {
	case err != nil:
	case a.undecodable:
		// Whether it can be decoded now counts, not whether it could be.
		err = a.store.Decoder.Decode(data, object, kv.ModRevision)
	default:
		object, err = a.store.own(ctx, kv, data, object)
	}
	switch {
	case a.undecodable && err == nil:
		return storage.NewInvalidObjError(a.key, "the object is not corrupt: delete it without ignoring read errors")
	case a.undecodable:
		a.state = &state{revision: kv.ModRevision, fresh: true}
		return nil
	case err != nil:
		return err
	}
	a.state = &state{object: object, data: data, revision: kv.ModRevision, stale: stale, fresh: true}
	return nil
}

// own gives an object that the caller may change.
func (s *Store) own(ctx context.Context, kv *raftstore.KeyValue, data []byte, empty runtime.Object) (runtime.Object, error) {
	if s.Objects == nil {
		return empty, s.Decoder.Decode(data, empty, kv.ModRevision)
	}
	object, err := s.Objects.Object(ctx, kv)
	if err != nil {
		return nil, err
	}
	return object.DeepCopyObject(), nil
}

// retry answers whether an error that came of the state is final: it is unless
// the state was a hint that turns out to be old.
func (a *attempt) retry(ctx context.Context, cause error) (again bool, err error) {
	if a.state.fresh {
		return false, cause
	}
	hinted := a.state.revision
	if err := a.refresh(ctx); err != nil {
		return false, err
	}
	if a.state.revision == hinted {
		return false, cause
	}
	return true, nil
}

// GuaranteedUpdate implements storage.Interface.
func (s *Store) GuaranteedUpdate(ctx context.Context, key string, destination runtime.Object, ignoreNotFound bool, preconditions *storage.Preconditions, tryUpdate storage.UpdateFunc, hint runtime.Object) error {
	key, err := s.Key(key, false)
	if err != nil {
		return err
	}
	if err := pointer(destination); err != nil {
		return err
	}
	a, err := s.newAttempt(ctx, key, destination, hint, ignoreNotFound, false)
	if err != nil {
		return err
	}
	for {
		done, err := a.update(ctx, destination, preconditions, tryUpdate)
		if done || err != nil {
			return err
		}
	}
}

// update tries once; done is false when it must be tried again from another state.
func (a *attempt) update(ctx context.Context, destination runtime.Object, preconditions *storage.Preconditions, tryUpdate storage.UpdateFunc) (done bool, err error) {
	data, ttl, err := a.compute(preconditions, tryUpdate)
	if err != nil {
		again, err := a.retry(ctx, err)
		return !again, err
	}
	if !a.state.stale && bytes.Equal(data, a.state.data) {
		if !a.state.fresh {
			// The hint may be old: nothing is only certain to change nothing.
			if err := a.refresh(ctx); err != nil {
				return false, err
			}
			if !bytes.Equal(data, a.state.data) {
				return false, nil
			}
		}
		if !a.state.stale {
			return true, a.store.Decoder.Decode(a.state.data, destination, a.state.revision)
		}
	}
	result, err := a.store.put(ctx, a.key, data, a.state.revision, ttl)
	if err != nil {
		return false, err
	}
	if !result.Succeeded {
		return false, a.load(ctx, result.KV)
	}
	return true, a.store.written(ctx, result.KV, data, destination)
}

// compute gives the bytes the update wants stored.
func (a *attempt) compute(preconditions *storage.Preconditions, tryUpdate storage.UpdateFunc) ([]byte, uint64, error) {
	if err := preconditions.Check(a.key, a.state.object); err != nil {
		return nil, 0, err
	}
	// The function may change what it gets: every try has a state of its own.
	updated, ttl, err := tryUpdate(a.state.object, storage.ResponseMeta{ResourceVersion: uint64(a.state.revision)})
	if err != nil {
		return nil, 0, err
	}
	data, err := a.store.encode(updated)
	if err != nil {
		return nil, 0, err
	}
	var life uint64
	if ttl != nil {
		life = *ttl
	}
	return data, life, nil
}

// Delete implements storage.Interface.
func (s *Store) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions, validate storage.ValidateObjectFunc, hint runtime.Object, options storage.DeleteOptions) error {
	key, err := s.Key(key, false)
	if err != nil {
		return err
	}
	if err := pointer(out); err != nil {
		return err
	}
	a, err := s.newAttempt(ctx, key, out, hint, false, options.ExpectTransformOrDecodeError)
	if err != nil {
		return err
	}
	for {
		err := preconditions.Check(key, a.state.object)
		if err == nil {
			err = validate(ctx, a.state.object)
		}
		if err != nil {
			again, err := a.retry(ctx, err)
			if !again {
				return err
			}
			continue
		}
		result, err := s.Config.Store.Delete(ctx, raftstore.DeleteRequest{Key: key, ExpectModRevision: a.state.revision})
		if err != nil {
			return unavailable(err)
		}
		if result.Succeeded {
			if a.undecodable {
				return nil
			}
			return s.Decoder.Decode(a.state.data, out, result.Revision)
		}
		if err := a.load(ctx, result.PrevKV); err != nil {
			return err
		}
	}
}
