package storage

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/control/storage/cached"
	"github.com/skiff-run/skiff/control/storage/raw"
	"github.com/skiff-run/skiff/raftstore"
)

// Prefix is before the key of every object, as in every Kubernetes cluster.
const Prefix = "/registry"

// protobuf is the media type objects are stored in.
const protobuf = "application/vnd.kubernetes.protobuf"

// Options make the storage of resources. It implements
// generic.RESTOptionsGetter and is safe for concurrent use.
type Options struct {
	Store *raftstore.Store
	// Hub follows Store for all resources.
	Hub    *cached.Hub
	Scheme *runtime.Scheme
	Codecs serializer.CodecFactory
	// Versions says in which version a resource's objects are stored where that is
	// not the first version of its own group: events.k8s.io events are core ones.
	Versions map[schema.GroupResource]schema.GroupVersion
	// Transformers encrypt resources; nil stores plain.
	Transformers func(schema.GroupResource) value.Transformer
	// Uncached resources are decoded at every read: those that are written often
	// and read seldom, such as events, are not worth the memory.
	Uncached map[schema.GroupResource]bool
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (o *Options) GetRESTOptions(resource schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	codec, err := o.codec(resource)
	if err != nil {
		return generic.RESTOptions{}, err
	}
	config := storagebackend.NewDefaultConfig(Prefix, codec)
	config.Transformer = identity.NewEncryptCheckTransformer()
	if o.Transformers != nil {
		config.Transformer = o.Transformers(resource)
	}
	return generic.RESTOptions{
		StorageConfig:           config.ForResource(resource),
		Decorator:               o.decorate,
		EnableGarbageCollection: true,
		DeleteCollectionWorkers: 4,
		ResourcePrefix:          prefixOf(resource),
	}, nil
}

// prefixOf is where a resource's objects lie. The names are those of
// Kubernetes' own storage, so that its documentation fits.
func prefixOf(resource schema.GroupResource) string {
	switch (schema.GroupResource{Group: resource.Group, Resource: resource.Resource}) {
	case schema.GroupResource{Resource: "services"}:
		return "services/specs"
	case schema.GroupResource{Resource: "endpoints"}:
		return "services/endpoints"
	case schema.GroupResource{Resource: "nodes"}:
		return "minions"
	}
	return resource.Resource
}

// codec encodes in the stored version as protobuf and decodes whatever was
// stored to the internal version.
func (o *Options) codec(resource schema.GroupResource) (runtime.Codec, error) {
	version, chosen := o.Versions[resource]
	if !chosen {
		versions := o.Scheme.PrioritizedVersionsForGroup(resource.Group)
		if len(versions) == 0 {
			return nil, fmt.Errorf("store %s: no version of group %q is registered", resource, resource.Group)
		}
		version = versions[0]
	}
	info, found := runtime.SerializerInfoForMediaType(o.Codecs.SupportedMediaTypes(), protobuf)
	if !found {
		return nil, fmt.Errorf("store %s: the scheme has no protobuf codec", resource)
	}
	internal := schema.GroupVersion{Group: version.Group, Version: runtime.APIVersionInternal}
	encoder := o.Codecs.EncoderForVersion(info.Serializer, version)
	decoder := o.Codecs.DecoderToVersion(o.Codecs.UniversalDeserializer(), runtime.NewMultiGroupVersioner(internal, schema.GroupKind{Group: version.Group}))
	return codecPair{encoder, decoder}, nil
}

// codecPair is an encoder and a decoder that belong together.
type codecPair struct {
	runtime.Encoder
	runtime.Decoder
}

// decorate implements generic.StorageDecorator.
func (o *Options) decorate(
	config *storagebackend.ConfigForResource, resourcePrefix string, _ func(runtime.Object) (string, error),
	newFunc, _ func() runtime.Object, attributes storage.AttrFunc, indexers storage.IndexerFuncs, _ *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	versioner := storage.APIObjectVersioner{}
	c := raw.TellCorrupt(raw.Config{
		Store: o.Store, Codec: config.Codec, Transformer: config.Transformer, Prefix: Prefix, ResourcePrefix: resourcePrefix,
		GroupResource: config.GroupResource, NewFunc: newFunc, Versioner: versioner, Decoder: etcd3.NewDefaultDecoder(config.Codec, versioner),
		Indexers: indexers,
	})
	if o.Uncached[config.GroupResource] {
		plain, err := raw.New(c)
		if err != nil {
			return nil, nil, err
		}
		return plain, func() {}, nil
	}
	shared, err := cached.New(o.Hub, c, attributes)
	if err != nil {
		return nil, nil, err
	}
	return shared, shared.Destroy, nil
}

// Ready returns nil once the store has caught up since its start and answers a
// linearizable read.
func (o *Options) Ready(ctx context.Context) error {
	if err := o.Store.Ready(); err != nil {
		return err
	}
	return o.Store.Health(ctx)
}
