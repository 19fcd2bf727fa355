package apiserver

import (
	"fmt"
	"net/http"

	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/skiff-run/skiff/control/openapi"
	"github.com/skiff-run/skiff/control/registry/scheme"
)

// descriptions are the OpenAPI documents of the API. The generic server would
// build them at its start and keep them, half of what an idle server keeps.
type descriptions struct {
	types *scheme.Scheme
	// installation describes the types while groups are installed, which makes
	// the schemas of server-side apply.
	installation *common.OpenAPIV3Config
	// info heads both documents; the generic server puts its version in.
	info   *spec.Info
	v2, v3 *published
}

// describe makes the generic server describe its types to server-side apply,
// but publish nothing.
func (s *Server) describe(c *genericapiserver.Config, types *scheme.Scheme) error {
	d := &descriptions{types: types}
	namer, err := d.namer()
	if err != nil {
		return err
	}
	d.installation = genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	d.info = d.installation.Info
	d.info.Title = "Kubernetes"
	c.OpenAPIV3Config, c.SkipOpenAPIInstallation = d.installation, true
	d.v2 = &published{name: "OpenAPI v2", logger: s.config.Logger, build: func() (http.Handler, error) { return d.buildV2(s.generic) }}
	d.v3 = &published{name: "OpenAPI v3", logger: s.config.Logger, build: func() (http.Handler, error) { return d.buildV3(s.generic) }}
	s.descriptions = d
	return nil
}

// publish serves the documents at their paths. It is called when every group is
// installed, and none can be afterwards.
func (d *descriptions) publish(paths *mux.PathRecorderMux) {
	// The generic server holds the pointer for good: leave it nothing to hold.
	*d.installation = common.OpenAPIV3Config{Info: d.info}
	paths.Handle("/openapi/v2", d.v2)
	paths.Handle("/openapi/v3", d.v3)
	paths.HandlePrefix("/openapi/v3/", d.v3)
}

// drop forgets both documents until somebody asks again.
func (d *descriptions) drop() {
	d.v2.drop()
	d.v3.drop()
}

// namer names the types that the server shows.
func (d *descriptions) namer() (*openapinamer.DefinitionNamer, error) {
	external, err := d.types.External()
	if err != nil {
		return nil, fmt.Errorf("make scheme of served versions: %w", err)
	}
	return openapinamer.NewDefinitionNamer(external), nil
}

// buildV2 makes the handler of the one document that OpenAPI v2 is.
func (d *descriptions) buildV2(generic *genericapiserver.GenericAPIServer) (http.Handler, error) {
	namer, err := d.namer()
	if err != nil {
		return nil, err
	}
	config := genericapiserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	config.Info = d.info
	swagger, err := builder.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices(generic.Handler.GoRestfulContainer.RegisteredWebServices()), config)
	if err != nil {
		return nil, fmt.Errorf("describe the routes: %w", err)
	}
	swagger.Definitions = handler.PruneDefaults(swagger.Definitions)
	paths := mux.NewPathRecorderMux("openapi-v2")
	handler.NewOpenAPIService(swagger).RegisterOpenAPIVersionedService("/openapi/v2", paths)
	return paths, nil
}

// buildV3 makes the handler of OpenAPI v3, which has a document for each group
// and version, and an index of them.
func (d *descriptions) buildV3(generic *genericapiserver.GenericAPIServer) (http.Handler, error) {
	namer, err := d.namer()
	if err != nil {
		return nil, err
	}
	config := genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	config.Info = d.info
	paths := mux.NewPathRecorderMux("openapi-v3")
	routes.OpenAPI{V3Config: config}.InstallV3(generic.Handler.GoRestfulContainer, paths)
	return paths, nil
}
