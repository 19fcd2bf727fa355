package raw

import (
	"context"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"github.com/skiff-run/skiff/raftstore"
)

// maxPage bounds how many keys are read at once while a selector matches few.
const maxPage = 10000

// GetList implements storage.Interface.
func (s *Store) GetList(ctx context.Context, key string, options storage.ListOptions, list runtime.Object) error {
	prefix, err := s.Key(key, options.Recursive)
	if err != nil {
		return err
	}
	items, err := itemsOf(list)
	if err != nil {
		return err
	}
	at, continueKey, err := storage.ValidateListOptions(prefix, s.Config.Versioner, options)
	if err != nil {
		return err
	}
	p := pager{store: s, prefix: prefix, options: options, start: continueKey, revision: at, newItem: newItem(list, items), items: items, exact: s.exactFields(options.Predicate)}
	// A continue token for "the newest state" carries no revision either.
	if at == 0 {
		if p.revision, err = s.AtLeast(ctx, options.ResourceVersion); err != nil {
			return err
		}
	}
	p.unreadable.resource = s.GroupResource
	if err := p.run(ctx); err != nil {
		if corrupt := p.unreadable.error(); corrupt != nil {
			return corrupt
		}
		return err
	}
	if err := p.unreadable.error(); err != nil {
		return err
	}
	token, remaining, err := storage.PrepareContinueToken(p.lastKey, prefix, p.revision, p.remaining, p.more, options)
	if err != nil {
		return err
	}
	if items.IsNil() {
		items.Set(reflect.MakeSlice(items.Type(), 0, 0))
	}
	if err := s.Config.Versioner.UpdateList(list, uint64(p.revision), token, remaining); err != nil {
		return err
	}
	options.Predicate.SetShardInfoOnList(list)
	return nil
}

// pager reads pages until the limit is filled or the keys end.
type pager struct {
	store    *Store
	prefix   string
	options  storage.ListOptions
	start    string
	revision int64
	newItem  func() runtime.Object
	items    reflect.Value
	exact    []exactField

	unreadable unreadable
	lastKey    string
	more       bool
	remaining  int64 // keys from the last page's start on, that page included
}

func (p *pager) run(ctx context.Context) error {
	limit := int(p.options.Predicate.Limit)
	size := limit
	for {
		page, err := p.read(size)
		if err != nil {
			return p.store.ListError(err, p.revision, p.options.Predicate.Continue != "", p.start, p.prefix)
		}
		p.remaining, p.more = page.Count, page.More
		for i, kv := range page.KVs {
			if limit > 0 && p.items.Len() >= limit {
				p.more = p.more || i < len(page.KVs)
				return nil
			}
			if err := p.add(ctx, kv); err != nil {
				return err
			}
			p.lastKey = kv.Key
		}
		if !page.More || limit > 0 && p.items.Len() >= limit {
			return nil
		}
		p.start = p.lastKey + "\x00"
		size = min(2*size, maxPage)
	}
}

func (p *pager) read(size int) (raftstore.RangeResult, error) {
	if p.options.Recursive {
		return p.store.Config.Store.Range(p.prefix, p.start, size, p.revision)
	}
	kv, _, err := p.store.Config.Store.Get(p.prefix, p.revision)
	if err != nil || kv == nil {
		return raftstore.RangeResult{}, err
	}
	return raftstore.RangeResult{KVs: []*raftstore.KeyValue{kv}, Count: 1}, nil
}

// add decodes an object and keeps it if the selectors want it.
func (p *pager) add(ctx context.Context, kv *raftstore.KeyValue) error {
	if ctx.Err() != nil {
		return storage.NewTimeoutError(kv.Key, "request did not complete within requested timeout")
	}
	object, err := p.object(ctx, kv)
	if err != nil {
		if p.unreadable.add(kv.Key, err) {
			return nil
		}
		return err
	}
	for _, exact := range p.exact {
		if exact.indexer(object) != exact.value {
			return nil
		}
	}
	if matches, err := p.options.Predicate.Matches(object); err == nil && matches {
		p.items.Set(reflect.Append(p.items, reflect.ValueOf(object).Elem()))
	}
	return nil
}

// object is the item of a list that is stored under a key.
func (p *pager) object(ctx context.Context, kv *raftstore.KeyValue) (runtime.Object, error) {
	if p.store.Objects != nil {
		return p.store.Objects.Object(ctx, kv)
	}
	data, _, err := p.store.open(ctx, kv)
	if err != nil {
		return nil, storage.NewInternalError(fmt.Errorf("unable to transform key %q: %w", kv.Key, err))
	}
	return p.store.Decoder.DecodeListItem(ctx, data, uint64(kv.ModRevision), p.newItem)
}

// exactField is a field that must have a value, and how to read it.
type exactField struct {
	indexer storage.IndexerFunc
	value   string
}

// exactFields are the demands of a selector that can be checked quickly.
func (s *Store) exactFields(predicate storage.SelectionPredicate) (demands []exactField) {
	if predicate.Field == nil {
		return nil
	}
	for field, indexer := range s.Indexers {
		if value, exact := predicate.Field.RequiresExactMatch(field); exact {
			demands = append(demands, exactField{indexer, value})
		}
	}
	return demands
}

// itemsOf returns the slice of a list's items.
func itemsOf(list runtime.Object) (reflect.Value, error) {
	pointer, err := meta.GetItemsPtr(list)
	if err != nil {
		return reflect.Value{}, err
	}
	items, err := conversion.EnforcePtr(pointer)
	if err != nil || items.Kind() != reflect.Slice {
		return reflect.Value{}, fmt.Errorf("need ptr to slice: %w", err)
	}
	return items, nil
}

// newItem makes empty items of a list. Those of a list of unknown type are of
// the list's version.
func newItem(list runtime.Object, items reflect.Value) func() runtime.Object {
	if unknown, ok := list.(*unstructured.UnstructuredList); ok {
		version := unknown.GetAPIVersion()
		return func() runtime.Object {
			return &unstructured.Unstructured{Object: map[string]any{"apiVersion": version}}
		}
	}
	kind := items.Type().Elem()
	return func() runtime.Object { return reflect.New(kind).Interface().(runtime.Object) }
}
