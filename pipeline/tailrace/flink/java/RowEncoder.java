package tailrace.flink;

import java.util.List;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.java.typeutils.ResultTypeQueryable;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.types.logical.ArrayType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.types.RowKind;

/**
 * Writes one row: byte 0, schema id (int32, big endian), Avro binary.
 *
 * The schema is the one that `tables.avro_schema` derives from the same columns: a nullable column is a union
 * with null first, timestamps are microseconds.  In upsert mode a delete becomes null, the tombstone of its key.
 */
public class RowEncoder implements SerializationSchema, ResultTypeQueryable {
    private static final long serialVersionUID = 1L;

    private final int schemaId;
    private final RowType rowType;
    private final boolean upsert;
    private final TypeInformation consumed;
    private transient RowData.FieldGetter[] getters;
    private transient AvroOutput out;

    RowEncoder(int schemaId, RowType rowType, boolean upsert, TypeInformation consumed) {
        this.schemaId = schemaId;
        this.rowType = rowType;
        this.upsert = upsert;
        this.consumed = consumed;
    }

    public byte[] serialize(Object element) {
        RowData row = (RowData) element;
        RowKind kind = row.getRowKind();
        if (upsert && (kind == RowKind.DELETE || kind == RowKind.UPDATE_BEFORE)) {
            return null;
        }
        if (out == null) {
            out = new AvroOutput();
            getters = getters(rowType);
        }
        out.reset();
        out.writeByte(0);
        out.writeByte(schemaId >>> 24);
        out.writeByte(schemaId >>> 16);
        out.writeByte(schemaId >>> 8);
        out.writeByte(schemaId);
        for (int i = 0; i < getters.length; i++) {
            write(getters[i].getFieldOrNull(row), rowType.getTypeAt(i));
        }
        return out.toBytes();
    }

    /** The connector asks for its lineage event; it cannot infer the type of a class compiled by Janino. */
    public TypeInformation getProducedType() {
        return consumed;
    }

    private static RowData.FieldGetter[] getters(RowType type) {
        RowData.FieldGetter[] getters = new RowData.FieldGetter[type.getFieldCount()];
        for (int i = 0; i < getters.length; i++) {
            getters[i] = RowData.createFieldGetter(type.getTypeAt(i), i);
        }
        return getters;
    }

    private void write(Object value, LogicalType type) {
        if (type.isNullable()) {
            out.writeLong(value == null ? 0L : 1L);
            if (value == null) {
                return;
            }
        }
        if (value instanceof Boolean) {
            out.writeByte(((Boolean) value).booleanValue() ? 1 : 0);
        } else if (value instanceof Float) {
            out.writeFixed32(Float.floatToRawIntBits(((Float) value).floatValue()));
        } else if (value instanceof Double) {
            out.writeFixed64(Double.doubleToRawLongBits(((Double) value).doubleValue()));
        } else if (value instanceof Number) {
            out.writeLong(((Number) value).longValue());
        } else if (value instanceof StringData) {
            out.writeBytes(((StringData) value).toBytes());
        } else if (value instanceof TimestampData) {
            TimestampData time = (TimestampData) value;
            out.writeLong(time.getMillisecond() * 1000L + time.getNanoOfMillisecond() / 1000);
        } else if (value instanceof DecimalData) {
            out.writeBytes(((DecimalData) value).toUnscaledBytes());
        } else if (value instanceof byte[]) {
            out.writeBytes((byte[]) value);
        } else if (value instanceof ArrayData) {
            writeArray((ArrayData) value, ((ArrayType) type).getElementType());
        } else {
            RowData.FieldGetter[] nested = getters((RowType) type);
            List types = ((RowType) type).getChildren();
            for (int i = 0; i < nested.length; i++) {
                write(nested[i].getFieldOrNull((RowData) value), (LogicalType) types.get(i));
            }
        }
    }

    private void writeArray(ArrayData array, LogicalType type) {
        int n = array.size();
        if (n > 0) {
            ArrayData.ElementGetter getter = ArrayData.createElementGetter(type);
            out.writeLong(n);
            for (int i = 0; i < n; i++) {
                write(getter.getElementOrNull(array, i), type);
            }
        }
        out.writeLong(0L);
    }
}
