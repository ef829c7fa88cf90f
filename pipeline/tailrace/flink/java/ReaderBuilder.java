package tailrace.flink;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.types.logical.ArrayType;
import org.apache.flink.table.types.logical.DecimalType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.MapType;
import org.apache.flink.table.types.logical.RowType;

/** Pairs a writer's Avro schema with the job's columns, by name, and says which column does not fit. */
class ReaderBuilder {
    private final String origin;
    private final Map named = new HashMap();

    ReaderBuilder(String origin) {
        this.origin = origin;
    }

    ValueReader.Row record(JsonNode schema, RowType target) throws IOException {
        if (!"record".equals(text(schema, "type"))) {
            throw new SchemaMismatchException(origin + " is not an Avro record");
        }
        remember(schema);
        JsonNode fields = child(schema, "fields");
        ValueReader[] readers = new ValueReader[fields.size()];
        int[] targets = new int[fields.size()];
        boolean[] given = new boolean[target == null ? 0 : target.getFieldCount()];
        for (int i = 0; i < fields.size(); i++) {
            String name = text(item(fields, i), "name");
            targets[i] = target == null ? -1 : target.getFieldIndex(name);
            LogicalType wanted = targets[i] < 0 ? null : target.getTypeAt(targets[i]);
            readers[i] = value(child(item(fields, i), "type"), wanted, name);
            if (targets[i] >= 0) {
                given[targets[i]] = true;
            }
        }
        for (int i = 0; i < given.length; i++) {
            if (!given[i] && !target.getTypeAt(i).isNullable()) {
                String column = (String) target.getFieldNames().get(i);
                throw new SchemaMismatchException(origin + " has no column " + column + ", which the job needs");
            }
        }
        return new ValueReader.Row(readers, targets, given.length);
    }

    /** A null `target` builds a reader whose value is thrown away. */
    private ValueReader value(JsonNode schema, LogicalType target, String column) throws IOException {
        if (schema.isArray()) {
            return union(schema, target, column);
        }
        if (schema.isTextual() && named.containsKey(schema.asText())) {
            return value((JsonNode) named.get(schema.asText()), target, column);
        }
        String type = schema.isTextual() ? schema.asText() : child(schema, "type").asText();
        if (schema.isObject() && child(schema, "type").isContainerNode()) {
            return value(child(schema, "type"), target, column);
        }
        remember(schema);
        if (type.equals("null")) {
            return new ValueReader.Null(null);
        }
        if (type.equals("record")) {
            require(target == null || target instanceof RowType, type, target, column);
            return record(schema, (RowType) target);
        }
        if (type.equals("array")) {
            require(target == null || target instanceof ArrayType, type, target, column);
            LogicalType element = target == null ? null : ((ArrayType) target).getElementType();
            return new ValueReader.Array(value(child(schema, "items"), element, column));
        }
        if (type.equals("map")) {
            require(target == null || target instanceof MapType, type, target, column);
            LogicalType element = target == null ? null : ((MapType) target).getValueType();
            return new ValueReader.Dictionary(value(child(schema, "values"), element, column));
        }
        return scalar(schema, type, target, column);
    }

    private ValueReader union(JsonNode branches, LogicalType target, String column) throws IOException {
        ValueReader[] readers = new ValueReader[branches.size()];
        for (int i = 0; i < readers.length; i++) {
            if ("null".equals(item(branches, i).asText()) && target != null && !target.isNullable()) {
                readers[i] = new ValueReader.Null("column " + column + " is null, the job was planned without nulls");
            } else {
                readers[i] = value(item(branches, i), target, column);
            }
        }
        return new ValueReader.Union(readers);
    }

    private ValueReader scalar(JsonNode schema, String type, LogicalType target, String column) throws IOException {
        String root = target == null ? "" : target.getTypeRoot().name();
        String logical = text(schema, "logicalType");
        if (type.equals("boolean")) {
            require(target == null || root.equals("BOOLEAN"), type, target, column);
            return new ValueReader.Bool();
        }
        if (type.equals("int") || type.equals("long")) {
            return integer(type, logical, root, target, column);
        }
        if (type.equals("float") || type.equals("double")) {
            ValueReader number = type.equals("float") ? (ValueReader) new ValueReader.Float32() : new ValueReader.Float64();
            if (type.equals("float") && root.equals("DOUBLE")) {
                return new ValueReader.Promoted(number, false);
            }
            require(target == null || root.equals(type.toUpperCase()), type, target, column);
            return number;
        }
        if (type.equals("bytes") || type.equals("fixed")) {
            ValueReader.Bytes bytes = new ValueReader.Bytes(type.equals("fixed") ? child(schema, "size").asInt() : -1);
            if (target instanceof DecimalType) {
                DecimalType decimal = (DecimalType) target;
                boolean fits = logical.equals("decimal")
                        && number(schema, "scale") == decimal.getScale()
                        && number(schema, "precision") <= decimal.getPrecision();
                require(fits, schema.toString(), target, column);
                return new ValueReader.Decimal(bytes, decimal.getPrecision(), decimal.getScale());
            }
            require(target == null || root.equals("VARBINARY") || root.equals("BINARY"), type, target, column);
            return bytes;
        }
        require(target == null || root.equals("VARCHAR") || root.equals("CHAR"), type, target, column);
        if (type.equals("enum")) {
            StringData[] symbols = new StringData[child(schema, "symbols").size()];
            for (int i = 0; i < symbols.length; i++) {
                symbols[i] = StringData.fromString(item(child(schema, "symbols"), i).asText());
            }
            return new ValueReader.Symbol(symbols);
        }
        require(type.equals("string"), type, target, column);
        return new ValueReader.Text();
    }

    private ValueReader integer(String type, String logical, String root, LogicalType target, String column)
            throws IOException {
        if (root.startsWith("TIMESTAMP")) {
            boolean micros = logical.endsWith("timestamp-micros");
            require(micros || logical.endsWith("timestamp-millis"), type + " " + logical, target, column);
            return new ValueReader.Timestamp(micros);
        }
        if (root.equals("FLOAT") || root.equals("DOUBLE")) {
            return new ValueReader.Promoted(new ValueReader.Int64(), root.equals("FLOAT"));
        }
        if (target == null || root.equals("BIGINT")) {
            return new ValueReader.Int64();
        }
        require(type.equals("int"), type, target, column);
        if (root.equals("SMALLINT")) {
            return new ValueReader.Int16();
        }
        require(root.equals("INTEGER") || (root.equals("DATE") && logical.equals("date")), type, target, column);
        return new ValueReader.Int32();
    }

    // Casts: Janino takes the return types of TreeNode's methods for JsonNode's.
    private static String text(JsonNode schema, String field) {
        return ((JsonNode) schema.path(field)).asText();
    }

    private static int number(JsonNode schema, String field) {
        return ((JsonNode) schema.path(field)).asInt();
    }

    private static JsonNode item(JsonNode array, int i) {
        return (JsonNode) array.get(i);
    }

    private static JsonNode child(JsonNode schema, String field) {
        return (JsonNode) schema.get(field);
    }

    private void remember(JsonNode schema) {
        if (schema.isObject() && schema.has("name")) {
            String name = child(schema, "name").asText();
            named.put(name, schema);
            if (schema.has("namespace")) {
                named.put(child(schema, "namespace").asText() + "." + name, schema);
            }
        }
    }

    private void require(boolean fits, String found, LogicalType target, String column) throws IOException {
        if (!fits) {
            throw new SchemaMismatchException(
                    "column " + column + " is Avro " + found + " in " + origin + ", the job was planned with " + target);
        }
    }
}
