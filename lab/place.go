package lab

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// place returns where a file says something, as [line:column] and a blank: the
// key of a map's entry, or the beginning of a list's. What the file does not say
// is at the place that would have to say it.
func place(tree ast.Node, path ...any) string {
	at, node := start(tree), tree
	for _, step := range path {
		node = bare(node)
		switch step := step.(type) {
		case string:
			node, at = entry(node, step, at)
		case int:
			if list, isList := node.(*ast.SequenceNode); isList && step < len(list.Values) {
				node = list.Values[step]
				at = start(node)
			} else {
				node = nil
			}
		}
		if node == nil {
			break
		}
	}
	return fmt.Sprintf("[%d:%d] ", at.Position.Line, at.Position.Column)
}

// entry returns the value of a key and where the key is.
func entry(node ast.Node, key string, at *token.Token) (ast.Node, *token.Token) {
	if m, isMap := node.(*ast.MappingNode); isMap {
		for _, pair := range m.Values {
			if pair.Key.GetToken().Value == key {
				return pair.Value, pair.Key.GetToken()
			}
		}
	}
	return nil, at
}

// bare takes off what a value may be dressed in.
func bare(node ast.Node) ast.Node {
	for {
		switch n := node.(type) {
		case *ast.AnchorNode:
			node = n.Value
		case *ast.TagNode:
			node = n.Value
		default:
			return node
		}
	}
}

// start is the first token of a value. A map in block style calls its first colon
// its own, a list its first dash.
func start(node ast.Node) *token.Token {
	switch n := bare(node).(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.SequenceNode:
		return n.Start
	}
	return node.GetToken()
}
