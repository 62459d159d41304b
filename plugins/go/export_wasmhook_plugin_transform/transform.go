// Package export_wasmhook_plugin_transform blanks the fields that the configuration names and adds
// "schema_version".
//
// Configuration: `fields`, names separated by commas, blanked at any depth; `schema_version`, "1" if
// absent.
package export_wasmhook_plugin_transform

import (
	"bytes"
	"encoding/json/jsontext"
	"io"
	"strings"

	"go.bytecodealliance.org/pkg/wit/types"
	"wit_component/collect"
	"wit_component/wasmhook_plugin_config"
	. "wit_component/wasmhook_plugin_transform"
)

const (
	blank       = "[redacted]"
	versionName = "schema_version"
)

// Transform decides about one event on its way to one endpoint.
func Transform(event Event, _ Endpoint) wit_types.Result[Verdict, Failure] {
	collect.Garbage()
	fields := map[string]bool{}
	for name := range strings.SplitSeq(wasmhook_plugin_config.Get("fields").SomeOr(""), ",") {
		fields[strings.TrimSpace(name)] = true
	}
	delete(fields, "")
	version := wasmhook_plugin_config.Get(versionName).SomeOr("1")
	body, err := redact(event.Payload, fields, version)
	if err != nil {
		return wit_types.Err[Verdict](Failure{Message: "the payload is not JSON"})
	}
	return wit_types.Ok[Verdict, Failure](MakeVerdictDeliver(Request{
		Body:        body,
		ContentType: wit_types.None[string](),
	}))
}

// redact copies the payload token by token, so that numbers and the order of names stay as they are.
func redact(payload []byte, fields map[string]bool, version string) ([]byte, error) {
	var body bytes.Buffer
	from := jsontext.NewDecoder(bytes.NewReader(payload), jsontext.AllowDuplicateNames(true))
	to := jsontext.NewEncoder(&body, jsontext.AllowDuplicateNames(true))
	versioned := false
	for {
		token, err := from.ReadToken()
		if err == io.EOF {
			return bytes.TrimRight(body.Bytes(), "\n"), nil
		}
		if err != nil {
			return nil, err
		}
		value := ""
		switch kind, count := to.StackIndex(to.StackDepth()); {
		case kind == jsontext.KindBeginObject && count%2 == 0 && token.Kind() == jsontext.KindString:
			// A name.
			isVersion := to.StackDepth() == 1 && token.String() == versionName
			if isVersion {
				versioned, value = true, version
			} else if fields[token.String()] {
				value = blank
			} else {
				break
			}
			if err := to.WriteToken(token); err != nil {
				return nil, err
			}
			token = jsontext.String(value)
			if err := from.SkipValue(); err != nil {
				return nil, err
			}
		case token.Kind() == jsontext.KindEndObject && to.StackDepth() == 1 && !versioned:
			if err := to.WriteToken(jsontext.String(versionName)); err != nil {
				return nil, err
			}
			if err := to.WriteToken(jsontext.String(version)); err != nil {
				return nil, err
			}
		}
		if err := to.WriteToken(token); err != nil {
			return nil, err
		}
	}
}
